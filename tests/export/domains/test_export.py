import json
import sys
from dataclasses import fields

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import weightfold as wf
from weightfold.export import ExportError, to_exported_program, to_onnx
from weightfold.export.domains import RoutedNet, to_onnx_per_domain
from weightfold.methods.share.net import SharedNet


def grouped(options, kind=wf.SharingOptions):
    """Arguments with those that `kind` holds in `options`."""
    own = {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}
    return {**options, "options": kind(**own)}


CLASSES = {"birds": 3, "cars": 5, "dogs": 2}
EXAMPLE = torch.zeros(1, 3, 8, 8)


class Small(nn.Module):
    """Grouped, depthwise, strided, dilated and biased convolutions, one padded by reflection."""

    def __init__(self, conv_head: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(8, eps=1e-2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect")
        self.bn2 = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2)
        self.conv2 = nn.Conv2d(12, 8, 1)
        self.bn3 = nn.BatchNorm2d(8, affine=False)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.conv_head = conv_head
        self.head = nn.Conv2d(8, 4, 1) if conv_head else nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.depthwise(x)).relu_() + x
        x = self.bn3(self.conv2(self.grouped(x).relu_()))
        return self.pool(self.head(x)) if self.conv_head else self.head(self.pool(x))


@torch.no_grad()
def apart(net: SharedNet, seed: int = 0) -> SharedNet:
    """The domains' own parameters and statistics moved, each its own way."""
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in net.sharing.domains.named_parameters():
        tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    for _, tensor in net.sharing.domains.named_buffers():
        if tensor.is_floating_point():
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return net


def shared_net(
    strategy: str = "bottom", fraction: float = 0.3, conv_head=False, **plan
) -> SharedNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small(conv_head)
    plan = wf.plan_sharing(
        model, strategy=strategy, fraction=fraction, example_input=EXAMPLE, **grouped(plan)
    )
    return apart(wf.share(model, CLASSES, plan))


def onnx_run(path, images: Tensor, ids: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {"images": images.numpy(), "domain": ids.numpy()})[0])


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))


@torch.no_grad()
def expected(net: SharedNet, x: Tensor, ids: Tensor) -> Tensor:
    """Image by image, by name."""
    rows = []
    for image, index in zip(x, ids.tolist(), strict=True):
        logits = net(image[None], domain=net.domains[index])
        rows.append(
            F.pad(logits, (0, max(net.classes.values()) - logits.shape[1]), value=-torch.inf)
        )
    return torch.cat(rows)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    net = shared_net()
    path = tmp_path_factory.mktemp("one") / "net.onnx"
    return net, to_onnx(net.train(), EXAMPLE, path), path


@pytest.mark.parametrize("strategy", ["bottom", "top", "random"])
@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("conv_head", [False, True])
def test_the_one_graph_is_the_net(strategy, fraction, conv_head):
    net = shared_net(strategy, fraction, conv_head).eval()
    routed = RoutedNet(net)
    for ids in ([1], [2, 2], [2, 0, 1, 1, 0, 2, 0], [0, 1] * 3):
        x, ids = images(len(ids)), torch.tensor(ids)
        torch.testing.assert_close(routed(x, ids), expected(net, x, ids), rtol=1e-5, atol=1e-5)
    x = images(2)
    assert not torch.allclose(net(x, domain="birds")[:, :2], net(x, domain="dogs"), atol=1e-2)


def test_shared_classifier_and_shared_batch_norm():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
    plan = wf.plan_sharing(
        model,
        "top",
        0.5,
        options=wf.SharingOptions(bn="shared", head="shared"),
        example_input=EXAMPLE,
    )
    net = apart(wf.share(model, {"birds": 4, "cars": 4}, plan)).eval()
    x, ids = images(3), torch.tensor([1, 0, 1])
    torch.testing.assert_close(RoutedNet(net)(x, ids), expected(net, x, ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ids", [[1], [0, 2], [2, 0, 1, 1, 0, 2, 0], [0] * 20])
def test_onnx_runtime_computes_the_net(exported, ids):
    net, _, path = exported
    x, ids = images(len(ids)), torch.tensor(ids)
    found = onnx_run(path, x, ids)
    assert found.shape == (len(ids), 5)
    torch.testing.assert_close(found, expected(net.eval(), x, ids), rtol=1e-5, atol=1e-5)


def test_report_and_metadata(exported):
    _, report, path = exported
    assert list(report.max_relative_difference) == list(CLASSES)
    # 30 times float32's 2**-24, for sums of up to 72 products.
    assert 0 < max(report.max_relative_difference.values()) < 2e-6
    assert report.bytes == path.stat().st_size
    stored = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert stored == {"domains": list(CLASSES), "classes": list(CLASSES.values()), "about": {}}
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"]


def test_the_file_holds_every_number_once(tmp_path):
    """Of random plans too, where every layer has both sorts of filters."""
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False)]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    plan = wf.plan_sharing(model, "random", 0.4, example_input=EXAMPLE)
    net = apart(wf.share(model, CLASSES, plan))
    to_onnx(net, EXAMPLE, tmp_path / "net.onnx")
    floats = [t for t in onnx.load(tmp_path / "net.onnx").graph.initializer if t.data_type == 1]
    # The batch norm is a scale and a shift a channel and domain, not four; and -inf is a number.
    numbers = sum(p.numel() for p in net.parameters()) + 1
    assert sum(len(t.raw_data) for t in floats) == 4 * numbers


def test_exported_program(tmp_path):
    net = shared_net("random", 0.4)
    report = to_exported_program(net, EXAMPLE, tmp_path / "net.pt2")
    assert max(report.max_relative_difference.values()) < 2e-6
    about = {"domains.json": ""}
    loaded = torch.export.load(tmp_path / "net.pt2", extra_files=about).module()
    x, ids = images(4), torch.tensor([2, 0, 0, 1])
    torch.testing.assert_close(loaded(x, ids), expected(net.eval(), x, ids), rtol=1e-5, atol=1e-5)
    assert json.loads(about["domains.json"])["domains"] == list(CLASSES)


def test_a_subspace_of_one_domain_is_exported_too(tmp_path):
    net = shared_net()
    outer = wf.subspace(net, 4, where="domains.cars.*")
    with torch.no_grad():
        for chart in outer.charts:
            for psi in chart.parameters():
                psi.add_(1.0)
    to_onnx(outer, EXAMPLE, tmp_path / "net.onnx")
    x, ids = images(3), torch.tensor([1, 0, 1])
    found = onnx_run(tmp_path / "net.onnx", x, ids)
    cars = outer.eval()(x[::2], at={"domain": "cars"})
    torch.testing.assert_close(found[::2], cars, rtol=1e-5, atol=1e-5)
    assert (net.eval()(x[::2], domain="cars") - cars).abs().max() > 1e-2


def test_what_is_refused(tmp_path, monkeypatch):
    path, net = tmp_path / "net.onnx", shared_net()
    with pytest.raises(TypeError, match="net is Small, not a SharedNet"):
        to_onnx_per_domain(Small(), EXAMPLE, tmp_path)
    with pytest.raises(ValueError, match=r"example_input has shape \(1, 1, 8, 8\)"):
        to_onnx(net, torch.zeros(1, 1, 8, 8), path)
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        to_exported_program(net, EXAMPLE, path)
    with pytest.raises(ExportError, match=r"differs from torch by .* for birds, .*tolerance=-1"):
        to_onnx(net, EXAMPLE, path, tolerance=-1)
    model = Small()
    model.bn2 = nn.BatchNorm2d(8, track_running_stats=False)
    plan = wf.plan_sharing(model, "top", 0.2, example_input=EXAMPLE)
    with pytest.raises(ValueError, match="batch norm 'bn2' keeps no running statistics"):
        to_onnx(wf.share(model, CLASSES, plan), EXAMPLE, path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'weightfold\[export\]'"):
        to_onnx(net, EXAMPLE, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [3, -1])
def test_ids_out_of_range_are_refused(exported, wrong):
    _, _, path = exported
    with pytest.raises(Exception, match="out of data bounds"):
        onnx_run(path, images(2), torch.tensor([0, wrong]))
