"""What construction allocates: never tensors of theta's size."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weightfold import Charted
from weightfold.core.chart import Chart
from weightfold.methods import catalogue
from weightfold.methods.embed.chart import ConvolutionMatrix
from weightfold.methods.embed.geometry import Geometry
from weightfold.methods.embed.layers import DenseConv


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operation makes in real memory."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta:
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // 4)
        return out


def test_a_large_convolution_as_a_matrix():
    convolution = nn.Conv2d(3, 64, 3, padding=1)
    with torch.device("meta"):
        layer = DenseConv(Geometry.of(convolution, (3, 64, 64), folded=True), bias=True)
    chart = ConvolutionMatrix({"0": layer}, execution="chain")
    with Largest() as largest:
        net = Charted(nn.Sequential(layer), [chart])
        out = net(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 64, 64, 64)
    assert largest.elements <= out.numel()
    assert layer.weight.numel() > 1000 * largest.elements


@pytest.mark.parametrize("kind", list(catalogue()))
def test_every_chart_is_checked_on_the_meta_device(kind, monkeypatch):
    example = catalogue()[kind].example()
    seen = []
    forward = type(example.chart).forward

    def note(self, **at):
        seen.append(all(t.is_meta for t in (*self.parameters(), *self.buffers())))
        return forward(self, **at)

    monkeypatch.setattr(type(example.chart), "forward", note)
    Charted(example.model, [example.chart])
    assert seen == [True]


class Constant(Chart):
    """Keeps a tensor that is no buffer, so that it does not run on the meta device."""

    kind = "constant-for-tests"

    def __init__(self, value):
        super().__init__()
        self.psi, self.factor = nn.Parameter(value.detach().clone()), torch.full_like(value, 2.0)

    def forward(self, **at):
        return {"0.weight": self.factor * self.psi}


@pytest.mark.parametrize("out", [3, 4])
def test_a_chart_that_cannot_is_checked_all_the_same(out):
    chart = Constant(torch.ones(out, 2))
    if out == 4:
        with pytest.raises(ValueError, match=r"0\.weight.*\(4, 2\).*\(3, 2\)"):
            Charted(nn.Sequential(nn.Linear(2, 3)), [chart])
    else:
        assert Charted(nn.Sequential(nn.Linear(2, 3)), [chart])(torch.ones(1, 2)).shape == (1, 3)
