"""`weightfold bench geometry`: what embedding a network and training it there costs, in ratios."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from weightfold.bench._measured import Measured, show
from weightfold.bench.expand import STATUS, status_bytes
from weightfold.methods.embed.geometry import Geometry
from weightfold.methods.embed.layers import DenseConv
from weightfold.methods.embed.strided import write_into
from weightfold.methods.embed.verb import embed
from weightfold.nets import build
from weightfold.timing import alternate
from weightfold.train.optimizer import optimizer_of
from weightfold.train.recipe import Recipe

MODEL, SHAPE, BATCH = "vanilla_cnn,width=32", (3, 32, 32), 250
RECIPE = Recipe(lr=0.01, momentum=0.0, schedule="constant", crop_padding=0, flip=False)


def bench_geometry(
    *, threads: int = 0, repeats: int = 15, folder: Path | None = None
) -> list[Measured]:
    """Measure Phi beside loops, a relaxed step beside its matrix products, and its peak memory.

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
    with console.status("bench geometry"):
        rows += _phi(repeats)
        rows.append(_step(repeats))
        rows += _memory()
    show(rows, console, f"{MODEL}, batch {BATCH}", repeats=repeats, folder=folder)
    return rows


def _phi(repeats: int) -> list[Measured]:
    """The largest layers of the paper's network, into matrices that are there."""
    rows = []
    layers = {
        "conv 4x4, 3 to 64, 32 px": (nn.Conv2d(3, 64, 4, stride=2, padding=2), SHAPE),
        "conv 5x5, 64 to 64, 8 px": (nn.Conv2d(64, 64, 5, padding=2), (64, 8, 8)),
    }
    for name, (layer, shape) in layers.items():
        geometry = Geometry.of(layer, shape, folded=False)
        kernel, matrix = layer.weight.detach(), torch.empty(geometry.matrix_shape)
        write_into(matrix, kernel, geometry)
        by_copy = matrix.clone()
        runs: dict[str, Callable[[], object]] = {
            "copy": lambda m=matrix, k=kernel, g=geometry: write_into(m, k, g),
            "filters": lambda m=matrix, k=kernel, g=geometry: _loop(m, k, g, filters=True),
            "positions": lambda m=matrix, k=kernel, g=geometry: _loop(m, k, g, filters=False),
        }
        runs["positions"]()
        assert torch.equal(matrix, by_copy)
        found = alternate(runs, warmup=1, repeats=repeats)
        times = {key: one.median_ms for key, one in found.items()}
        note = ", ".join(f"{key} {value:.0f} ms" for key, value in times.items())
        rows.append(
            Measured(f"Phi, {name}: loop over filters and positions / strided copy",
                     times["filters"] / times["copy"], "x", 4.0, higher=True, note=note)
        )  # fmt: skip
        rows.append(
            Measured(f"Phi, {name}: loop over positions / strided copy",
                     times["positions"] / times["copy"], "x", 4.0, higher=True)
        )  # fmt: skip
    return rows


def _loop(matrix: Tensor, kernel: Tensor, g: Geometry, *, filters: bool) -> None:
    """As the published code: a slice of the matrix at a time."""
    whole = matrix.zero_().view(*g.out_shape, *g.padded)
    rows, columns = g.positions
    (high, wide), (down, right) = g.kernel_size, g.stride
    for i, j in product(range(rows), range(columns)):
        top, left = i * down, j * right
        if not filters:
            whole[:, i, j, :, top : top + high, left : left + wide] = kernel
            continue
        for c in range(g.out_channels):
            whole[c, i, j, :, top : top + high, left : left + wide] = kernel[c]


def _relaxed(model: str = MODEL) -> tuple[nn.Module, Callable[[], None]]:
    torch.manual_seed(0)
    net = embed(build(model, num_classes=10), SHAPE)
    optimizer = optimizer_of(net, RECIPE, 0.0, in_place=True)
    x, y = torch.randn(BATCH, *SHAPE), torch.randint(10, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return net, step


def _step(repeats: int) -> Measured:
    """A training step, all of it, beside the products of its embedded layers alone."""
    net, step = _relaxed()
    layers = [m for m in net.modules() if isinstance(m, DenseConv)]
    pairs = [
        (torch.randn(BATCH, layer.in_features), torch.randn(BATCH, layer.out_features))
        for layer in layers
    ]
    weights = [torch.randn_like(layer.weight) for layer in layers]

    def bare() -> None:
        for place, (weight, (x, g)) in enumerate(zip(weights, pairs, strict=True)):
            x @ weight.t()
            if place:  # the first layer's input needs no gradient
                g @ weight
            weight.addmm_(g.t(), x, alpha=-1e-9)

    times = alternate({"step": step, "bare": bare}, warmup=2, repeats=repeats)
    high, low = times["step"].median_ms, times["bare"].median_ms
    note = f"{high:.0f} ms and {low:.0f} ms; the step has pooling, ReLU and the head besides"
    return Measured("relaxed step / its bare matrix products", high / low, "x", 1.05, note=note)


def _memory() -> list[Measured]:
    """Peak of steps in a process of its own, over weights and what the forward pass keeps."""
    if not STATUS.exists():
        return []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        peak, weights, kept = pool.submit(_peak).result()
    note = f"{peak / 1e6:.0f} MB; weights {weights / 1e6:.0f} MB, activations {kept / 1e6:.0f} MB"
    return [Measured("peak memory / weights and activations", peak / (weights + kept), "x", 1.05,
                     note=note)]  # fmt: skip


def _peak() -> tuple[int, int, int]:
    """Bytes at the peak of three steps above those before the net, of weights, of activations."""
    torch.set_num_threads(1)
    _relaxed("vanilla_cnn,width=1")[1]()  # what libraries keep is there
    before = status_bytes("VmRSS")
    net, step = _relaxed()
    storages: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    for _ in range(2):
        step()
    size = sum(p.numel() * p.element_size() for p in net.parameters())
    return status_bytes("VmHWM") - before, size, sum(storages.values())
