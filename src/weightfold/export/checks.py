"""What every export begins and ends with: a frozen copy, inputs to probe it, and a comparison."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from weightfold.export.runners import Runner, torch_runner

BATCH_SIZES = (1, 2, 5)
MAGNITUDES = (1.0, 1000.0)
"""Standard deviations of the inputs on which a file is compared with torch.

Absolute differences of tiny outputs say little, and so do those of large ones: compare relative.
"""


class ExportError(RuntimeError):
    """A network could not be exported, or its file does not compute what torch computes."""


def frozen(module: nn.Module) -> nn.Module:
    """A copy of `module` on the CPU in eval mode; `module` keeps its modes, device and values."""
    return copy.deepcopy(module).cpu().eval()


def traceable(
    net: nn.Module,
    example_input: Tensor,
    *,
    dynamic_batch: bool = True,
    argument: str = "example_input",
) -> Tensor:
    """Noise like `example_input` that an export can trace with, after a run of `net` on it.

    With a dynamic batch it is of two images, because torch.export takes a batch of one for fixed.

    Raises:
        TypeError: `example_input` (the caller's `argument`) is not a floating-point tensor, or the
            network does not return one tensor.
        ValueError: `example_input` has no batch, or the network does not take its shape.
    """
    if not isinstance(example_input, Tensor) or not example_input.is_floating_point():
        given = example_input.dtype if isinstance(example_input, Tensor) else type(example_input)
        raise TypeError(f"{argument} is {given}; give a floating-point tensor (B, ...)")
    shape = tuple(example_input.shape)
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"{argument} has shape {shape}; give (B, ...), like (1, 3, 32, 32)")
    images = probe(example_input, 2 if dynamic_batch else len(example_input))
    name = type(net).__name__
    try:
        output = torch_runner(net)(images)
    except Exception as error:
        raise ValueError(
            f"{argument} has shape {shape} and dtype {example_input.dtype}, which {name} does not "
            f"take: {error}"
        ) from error
    if not isinstance(output, Tensor):
        raise TypeError(f"{name} returns {type(output).__name__}; export takes one tensor to one")
    return images


def probe(example_input: Tensor, batch_size: int, magnitude: float = 1.0) -> Tensor:
    """Normal noise of the shape and dtype of `example_input`, on the CPU; the same at each call.

    Exports trace with it instead of the example itself: a .pt2 file stores its example, whole
    storage included, and a user's images are not ours to ship.
    """
    generator = torch.Generator().manual_seed(batch_size)
    noise = torch.randn(batch_size, *example_input.shape[1:], generator=generator)
    return (magnitude * noise).to(example_input.dtype)


def batch_dimension(dynamic_batch: bool) -> tuple[dict[int, torch.export.Dim]] | None:
    """`dynamic_shapes` of a network of one input."""
    return ({0: torch.export.Dim("batch")},) if dynamic_batch else None


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Max |a - b| / max |b|; 0 where both are equal, NaN where one is not finite."""
    if torch.equal(a, b):
        return 0.0
    return ((a - b).abs().max() / b.abs().max()).item()


def relative_differences(
    run: Runner, net: nn.Module, example_input: Tensor, batch_sizes: tuple[int, ...]
) -> dict[int, float]:
    """Per batch size, how far `run` is from `net`: the larger over `MAGNITUDES`."""
    reference = torch_runner(net)
    worst = {}
    for batch_size in batch_sizes:
        inputs = [probe(example_input, batch_size, magnitude) for magnitude in MAGNITUDES]
        found = [relative_difference(run(x), reference(x)) for x in inputs]
        worst[batch_size] = next((d for d in found if d != d), max(found))
    return worst


def check_differences(what: str, differences: Mapping[int, float], tolerance: float) -> None:
    """Compare relative differences with `tolerance`.

    Raises:
        ExportError: One is larger, or not a number.
    """
    if all(difference <= tolerance for difference in differences.values()):
        return
    shown = ", ".join(f"{d:.2e} at batch {b}" for b, d in differences.items())
    raise ExportError(
        f"{what} differs from torch by {shown} (largest difference over largest output); "
        f"tolerance={tolerance:g}. Nothing was written"
    )


@contextmanager
def attempting(what: str, net: nn.Module, example_input: Tensor) -> Iterator[None]:
    """Say what failed on which network.

    Raises:
        ExportError: The block raised; the cause is attached.
    """
    try:
        yield
    except Exception as error:
        shape = ", ".join(["batch", *map(str, example_input.shape[1:])])
        raise ExportError(
            f"{what} failed on {type(net).__name__} with an input of shape ({shape}): {error}"
        ) from error
