import importlib.util
import sys

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.export import ExportError
from weightfold.export.domains import to_executorch

EXAMPLE = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)]
        model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        plan = wf.plan_sharing(model, "random", 0.4, example_input=EXAMPLE)
        net = wf.share(model, {"birds": 3, "cars": 5}, plan)
        with torch.no_grad():
            for p in net.sharing.domains.parameters():
                p.add_(0.3 * torch.randn_like(p))
    return net


@pytest.mark.skipif(not importlib.util.find_spec("executorch"), reason="needs executorch")
def test_executorch_computes_the_domain(net, tmp_path):
    from executorch.runtime import Runtime

    path = tmp_path / "cars.pte"
    report = to_executorch(net, EXAMPLE, path, domain="cars")
    assert report.bytes == path.stat().st_size
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = Runtime.get().load_program(path).load_method("forward").execute([x])[0]
    torch.testing.assert_close(found, net.eval()(x, domain="cars"), rtol=1e-5, atol=1e-5)
    with pytest.raises(ExportError, match=r"tolerance=-1"):
        to_executorch(net, EXAMPLE, path, domain="birds", tolerance=-1)
    with pytest.raises(KeyError, match="domain='dogs'; the domains are birds, cars"):
        to_executorch(net, EXAMPLE, path, domain="dogs")
    assert [p.name for p in tmp_path.iterdir()] == ["cars.pte"]


def test_the_missing_extra_is_named(net, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(ImportError, match=r"pip install 'weightfold\[executorch\]'"):
        to_executorch(net, EXAMPLE, tmp_path / "cars.pte", domain="cars")
