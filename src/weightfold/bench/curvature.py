"""`weightfold bench curvature`: eigenvalues and landscapes beside the usual loops, as ratios."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from weightfold.bench._measured import Measured, show
from weightfold.data import Dataset, as_dataset
from weightfold.nets import build
from weightfold.probes.hessian.verb import hessian
from weightfold.probes.landscape.evaluate import evaluate
from weightfold.probes.objective import Objective
from weightfold.timing import alternate

EXAMPLES, TOL, MOST = 1000, 1e-3, 500
GRIDS = (
    ("mlp,width=20,size=8", (1, 8, 8), 51, 200, 1.5),
    ("mlp", (1, 28, 28), 11, 200, None),
    ("lenet", (1, 28, 28), 11, 200, None),
)
"""Network, image, points on each of two axes, examples, aim. Where arithmetic is all, as in the
last two on a CPU, nothing is to be gained."""


def bench_curvature(
    *, threads: int = 0, repeats: int = 5, folder: Path | None = None
) -> list[Measured]:
    """Measure the top eigenvalue and landscapes.

    Args:
        threads: Threads of torch; 0 keeps torch's number.
        repeats: Timed rounds; medians are reported.
        folder: Writes bench.json there.

    Raises:
        ValueError: `repeats` below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}; give at least 1")
    if threads:
        torch.set_num_threads(threads)
    console, rows = Console(), list[Measured]()
    with console.status("bench curvature"):
        rows += _top(repeats)
        rows += [_landscape(*grid, repeats) for grid in GRIDS]
    show(rows, console, f"{EXAMPLES:,} examples", repeats=repeats, folder=folder)
    return rows


def _data(shape: tuple[int, ...], examples: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples, *shape, generator=generator)
    y = torch.randint(10, (examples,), generator=generator)
    return as_dataset(((x, y), (x[:10], y[:10])))


def _net(model: str) -> nn.Module:
    torch.manual_seed(0)
    return build(model, num_classes=10, in_channels=1).eval()


def _top(repeats: int) -> list[Measured]:
    """Lanczos beside power iteration, both until the residual is at most 1e-3 of the value."""
    net, data = _net("mlp"), _data((1, 28, 28), EXAMPLES)
    ours = lambda: hessian(net, data).eigenvalues(1, tol=TOL)[0].value  # noqa: E731
    to_residual = partial(power, net, data.train.inputs, data.train.targets, residual=TOL)
    to_change = partial(power, net, data.train.inputs, data.train.targets, change=TOL)
    runs: dict[str, Callable[[], object]] = {
        "ours": ours, "power": to_residual, "usual": to_change
    }  # fmt: skip
    times = {name: t.median_ms for name, t in alternate(runs, warmup=1, repeats=repeats).items()}
    value, (exact, products), (usual, fewer) = ours(), to_residual(), to_change()
    off = abs(usual - value) / value
    return [
        Measured(
            "top eigenvalue, Lanczos / power iteration to the same residual",
            times["ours"] / times["power"],
            "x",
            0.4,
            note=f"{times['ours']:.0f} and {times['power']:.0f} ms, {products} products; values "
            f"{value:.5g} and {exact:.5g}",
        ),
        Measured(
            "the same / power iteration until a step changes it by less than 1e-3",
            times["ours"] / times["usual"],
            "x",
            None,
            note=f"{times['usual']:.0f} ms, {fewer} products, its value is off by {off:.1%}",
        ),
    ]


def power(
    net: nn.Module, x: Tensor, y: Tensor, *, residual: float = 0.0, change: float = 0.0
) -> tuple[float, int]:
    """Power iteration by double backward on a graph built once, as PyHessian does it.

    Args:
        net: The network.
        x: Inputs (B, ...).
        y: Labels (B,).
        residual: Stop once |H v - value v| is at most this share of the value.
        change: Stop once a step changes the value by less than this share of it.

    Returns:
        The value, and the number of products.
    """
    params = list(net.parameters())
    gradient = torch.autograd.grad(F.cross_entropy(net(x), y), params, create_graph=True)
    v = [torch.randn_like(p) for p in params]
    value, last, products = 0.0, None, 0
    for _ in range(MOST):
        norm = sum(t.square().sum() for t in v).sqrt()  # type: ignore[union-attr]
        v = [t / norm for t in v]
        hv = torch.autograd.grad(gradient, params, v, retain_graph=True)
        products += 1
        value = sum((a * b).sum() for a, b in zip(hv, v, strict=True)).item()  # type: ignore[union-attr]
        pairs = zip(hv, v, strict=True)
        off = sum((a - value * b).square().sum() for a, b in pairs).sqrt().item()  # type: ignore[union-attr]
        if off <= residual * abs(value):
            break
        if last is not None and abs(value - last) < change * abs(last):
            break
        v, last = list(hv), value
    return value, products


def _landscape(
    model: str, shape: tuple[int, ...], points: int, examples: int, aim: float | None, repeats: int
) -> Measured:
    net, data = _net(model), _data(shape, examples)
    objective = Objective(net, data)
    generator = torch.Generator().manual_seed(0)
    a, b = (0.01 * torch.randn(objective.size, generator=generator) for _ in range(2))
    at = [(i / points, j / points) for i in range(points) for j in range(points)]
    start = objective.flat()

    def made() -> Iterator[Tensor]:
        return (start + i * a + j * b for i, j in at)

    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: evaluate(objective, made(), len(at)),
        "loop": lambda: loop(net, data, made()),
    }
    times = {n: t.median_ms for n, t in alternate(runs, warmup=0, repeats=repeats).items()}
    return Measured(
        f"landscape {points} x {points}, a loop that copies parameters / ours: {model}",
        times["loop"] / times["ours"],
        "x",
        aim,
        higher=True,
        note=f"{times['loop']:.0f} and {times['ours']:.0f} ms, {examples} examples",
    )


@torch.no_grad()
def loop(net: nn.Module, data: Dataset, points: Iterator[Tensor]) -> list[tuple[float, float]]:
    """Loss and accuracy at each point, its values copied into the network's parameters."""
    found, y = [], data.train.targets
    for point in points:
        sizes = [p.numel() for p in net.parameters()]
        for parameter, values in zip(net.parameters(), point.split(sizes), strict=True):
            parameter.copy_(values.view_as(parameter))
        logits = net(data.normalize(data.train.inputs))
        right = (logits.argmax(dim=1) == y).float().mean()
        found.append((F.cross_entropy(logits, y).item(), right.item()))
    return found
