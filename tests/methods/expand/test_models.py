"""Whole networks: expanded, deployed, with the original keys."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.nets import build

MODELS = ["mobilenet_v2", "shufflenet_v2_x0_5", "resnet18"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_expand_and_deploy(name, execution):
    model = build(f"{name},small_image=true", num_classes=10)
    rate = 1 if name == "resnet18" else 4
    net = wf.expand(model, rate, init="variance", execution=execution, seed=0)
    kernels = [
        n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)
    ]
    assert list(net.charts[0].config()["layers"]) == kernels
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        net(x)  # moves the running statistics
    plain = net.eval().deploy()
    assert type(plain) is type(model)
    wanted, given = model.state_dict(), plain.state_dict()
    assert list(given) == list(wanted)
    assert all(given[n].shape == t.shape and given[n].dtype == t.dtype for n, t in wanted.items())
    with torch.no_grad():
        a, b = net(x), plain(x)
    assert (a - b).abs().max() <= 1e-4 * b.abs().max()
    model.load_state_dict(given)


def test_preserve_mobilenet():
    model = build("mobilenet_v2,small_image=true", num_classes=10).eval()
    net = wf.expand(model, 2, init="preserve", seed=0).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        a, b = net(x), model(x)
    assert (a - b).abs().max() <= 1e-4 * b.abs().max()
    assert max(net.charts[0].residuals(model.state_dict()).values()) <= 1e-5
