"""`weightfold bench probes`: what the probes' machinery costs, in ratios of one run."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from weightfold.bench._measured import Measured, show
from weightfold.data import as_dataset
from weightfold.methods.subspace.projections import KINDS, Projection, make
from weightfold.methods.subspace.verb import subspace
from weightfold.nets import build
from weightfold.tasks.registry import as_task
from weightfold.timing import alternate
from weightfold.train.recipe import Recipe
from weightfold.train.strategies.stack import Stack

SIZE, DIM = 199_210, 750
BATCH = 128
SEEDS, HIDDEN, SEED_BATCHES = 16, 20, (32, 128)
RECIPE = Recipe(batch_size=BATCH, lr=0.1, crop_padding=0, flip=False)
CALLS = 5
"""Calls timed as one, as a training loop makes them: a call right after another program's has to
fetch its memory and wake its threads first."""
TIMES_FASTER = {"dense": 10.0, "fastfood": 5.0}


def bench_probes(
    *, threads: int = 0, repeats: int = 20, folder: Path | None = None
) -> list[Measured]:
    """Measure projections, training steps in a subspace, and seeds trained as one batch.

    Args:
        threads: Threads of torch; 0 keeps torch's number.
        repeats: Timed rounds; medians are reported.
        folder: Writes bench.json there.

    Raises:
        ValueError: `repeats` below 4.
    """
    if repeats < 4:
        raise ValueError(f"repeats={repeats}; a median needs at least 4 rounds")
    if threads:
        torch.set_num_threads(threads)
    console, rows = Console(), list[Measured]()
    with console.status("bench probes"):
        rows += _projections(repeats)
        rows.append(_step("mlp", DIM, (1, 28, 28), repeats, aim=1.6))
        rows.append(_step("lenet", 290, (1, 28, 28), repeats, aim=None))
        rows += [_seeds(batch, repeats) for batch in SEED_BATCHES]
    show(rows, console, f"D = {SIZE:,}, d = {DIM}", repeats=repeats, folder=folder)
    return rows


def _projections(repeats: int) -> list[Measured]:
    """Forward and adjoint, as autograd runs them, beside those of block SRHT; and memory."""
    projections = {kind: make(kind, SIZE, DIM, torch.zeros(())) for kind in KINDS}
    for projection in projections.values():
        projection.draw(0)
    times = _timed({kind: _round_trip(p) for kind, p in projections.items()}, repeats)
    srht = times["srht"]
    rows = [
        Measured(
            f"projection forward + adjoint: {kind} / block SRHT",
            times[kind] / srht,
            "x",
            TIMES_FASTER.get(kind),
            higher=True,
            note=f"{times[kind]:.2f} ms and {srht:.2f} ms",
        )
        for kind in KINDS
        if kind != "srht"
    ]
    packed = projections["srht"].get_buffer("packed")
    bits = 8 * packed.numel() / SIZE
    rest = sum(b.nbytes for b in projections["srht"].buffers()) - packed.nbytes
    note = f"in memory; and {rest / 1e3:.0f} kB whatever D; on disk the seed alone"
    # Whole bytes: up to seven bits more than one a row.
    return [*rows, Measured("block SRHT, bits a parameter", bits, "bits", 1 + 7 / SIZE, note=note)]


def _timed(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of one call of each, the median of rounds in which they take turns."""

    def several(run: Callable[[], object]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(CALLS):
                run()

        return call

    times = alternate({name: several(run) for name, run in runs.items()}, warmup=3, repeats=repeats)
    return {name: time.median_ms / CALLS for name, time in times.items()}


def _round_trip(projection: Projection) -> Callable[[], Tensor]:
    psi = torch.zeros(projection.dim, requires_grad=True)
    gradient = torch.randn(projection.size, generator=torch.Generator().manual_seed(0))
    return lambda: torch.autograd.grad(projection(psi), psi, gradient)[0]


def _step(
    model: str, dim: int, shape: tuple[int, ...], repeats: int, *, aim: float | None
) -> Measured:
    """A training step in a subspace beside one of the plain network, both in a plain loop."""
    torch.manual_seed(0)
    plain = build(model, num_classes=10, in_channels=shape[0])
    x, y = torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))
    charted = subspace(plain, dim, seed=0)
    times = _timed({"plain": _loop(plain, x, y), "subspace": _loop(charted, x, y)}, repeats)
    low, high = times["plain"], times["subspace"]
    size = sum(p.numel() for p in plain.parameters())
    return Measured(
        f"training step in a subspace / plain: {model}",
        high / low,
        "x",
        aim,
        note=f"D = {size:,}, d = {dim}, batch {BATCH}; {high:.2f} ms and {low:.2f} ms",
    )


def _loop(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """One step of the loop that a user would write."""
    optimizer = torch.optim.SGD(net.parameters(), lr=RECIPE.lr, momentum=RECIPE.momentum)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def _seeds(batch: int, repeats: int) -> Measured:
    """Steps of networks one after another, in plain loops, beside one step of them all."""
    torch.manual_seed(0)
    model = f"mlp,depth=1,width={HIDDEN}"
    nets = [build(model, num_classes=10, in_channels=1) for _ in range(SEEDS)]
    x, y = torch.randn(SEEDS, batch, 1, 28, 28), torch.randint(10, (SEEDS, batch))
    dataset = as_dataset(((x[0], y[0]), (x[0], y[0])))
    stack = Stack(nets, as_task(dataset), RECIPE)
    steps = [_loop(net, a, b) for net, a, b in zip(nets, x, y, strict=True)]
    times = _timed(
        {
            "alone": lambda: [step() for step in steps],
            "together": lambda: stack.step(x, y, RECIPE.lr),
        },
        repeats,
    )
    alone, together = times["alone"], times["together"]
    return Measured(
        f"{SEEDS} seeds one after another / vmapped, batch {batch}",
        alone / together,
        "x",
        2.0,
        higher=True,
        note=f"MLP of {HIDDEN} hidden units; {alone:.2f} ms and {together:.2f} ms for all",
    )
