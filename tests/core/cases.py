"""Small nets for the tests of the core; a plain module, so that worker processes can import it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightfold import Charted
from weightfold.core.chart import Chart
from weightfold.methods import catalogue


@dataclass
class Case:
    """A chart's own example, its net, and a second input."""

    kind: str
    model: nn.Module
    chart: Chart
    net: Charted
    x: Tensor
    at: dict[str, Any]
    fits: bool

    def run(self, net: nn.Module | None = None, x: Tensor | None = None) -> Tensor:
        """Output of `net` (a Charted one: with `at`)."""
        net, x = self.net if net is None else net, self.x if x is None else x
        return net(x, at=self.at) if isinstance(net, Charted) else net(x)


def shake(module: nn.Module, scale: float = 0.3) -> None:
    """Move all parameters, so that no test holds only at the start values."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=p.dtype))


def make(kind: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """The example of a chart, psi and the rest moved at random."""
    torch.manual_seed(seed)
    example = catalogue()[kind].example()
    model, chart = example.model.to(dtype), example.chart.to(dtype)
    net = Charted(model, [chart])
    shake(net)
    return Case(kind, model, chart, net, example.x.to(dtype), example.at, example.fits)


def gradients(net: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients there are."""
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def gap(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest |a - b| of all tensors, relative to the largest |b| of the tensor.

    A tensor below a thousandth of the largest counts as that: biases before a batch norm have
    gradients of pure rounding.
    """
    assert list(a) == list(b)
    sizes = {n: t.detach().double().abs().max().item() for n, t in b.items()}
    floor = max(1e-3 * max(sizes.values()), 1e-300)
    return max(
        (a[n].detach().double() - b[n].detach().double()).abs().max().item() / max(size, floor)
        for n, size in sizes.items()
    )


class Tied(nn.Module):
    """Two Linears of one weight, and a third of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 6)
        self.down = nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(6, 2)
        self.down.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(torch.tanh(self.up(x))))


class Twice(nn.Module):
    """A module registered under two names and called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = self.first
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.tanh(self.first(x))))


class Counter(nn.Module):
    """Re-assigns its buffer instead of changing it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 2)
        self.register_buffer("n", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.n = self.n + 1
        return self.lin(x) + self.n


class Conv(nn.Module):
    """Named layers: conv, norm, conv, Linear."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 3, 3)
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.softplus(self.norm(self.conv1(x)))
        return self.head(self.conv2(x).flatten(1))
