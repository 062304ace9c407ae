"""What is exported: a network in eval mode, inputs to trace it with, and its comparison."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.copying import copied
from weightfold.core.preprocessing import Preprocessing, check_class_names
from weightfold.export.runners import PREPROCESSING, torch_runner
from weightfold.tasks.outputs import tensor_of

BATCH_SIZES = (1, 2, 5)
MAGNITUDES = (1.0, 1000.0)
"""Standard deviations of the inputs on which a file is compared with torch.

Absolute differences of tiny outputs say little, and so do those of large ones: compare relative.
"""

Run = Callable[..., Tensor]
"""Inputs to outputs."""


class ExportError(RuntimeError):
    """A network could not be exported, or its file does not compute what torch computes."""


class OneOutput(nn.Module):
    """A network that gives one of its several outputs.

    Args:
        net: Gives a mapping, a named tuple or a sequence of tensors; not copied.
        output: Which, see `weightfold.tasks.outputs.tensor_of`.
    """

    def __init__(self, net: nn.Module, output: str | int | None = None) -> None:
        super().__init__()
        self.net, self.output = net, output
        if (told := Preprocessing.of(net)) is not None:
            told.attach(self)

    def forward(self, x: Tensor) -> Tensor:
        """The one output."""
        return tensor_of(self.net(x), self.output)


def one_output(net: nn.Module, images: Tensor, output: str | int | None = None) -> nn.Module:
    """`net`, if it gives one tensor, else with the one of its outputs that is meant.

    Args:
        net: In eval mode.
        images: To try it with, (B, ...).
        output: As in `OneOutput`; None: that called "out" or "logits".

    Raises:
        TypeError: There is no such output; the message lists what there is.
    """
    device = next((t.device for t in net.state_dict().values()), torch.device("cpu"))
    with torch.no_grad():
        found = net(images.to(device))
    if isinstance(found, Tensor) and output is None:
        return net
    try:
        tensor_of(found, output)
    except TypeError as error:
        raise TypeError(f"{type(net).__name__}: {error}") from error
    return OneOutput(net, output)


@dataclass(frozen=True)
class Subject:
    """A network as the exports take it.

    Attributes:
        net: What is traced, in eval mode on the CPU.
        title: Of the network, for errors.
        inputs: Name -> example.
        shapes: `dynamic_shapes` for torch.export; None: all sizes are fixed.
        differences: How far a file's run is from torch: max |run - torch| / max |torch|, by what
            was tried.
        metadata: What a file says of the network.
    """

    net: nn.Module
    title: str
    inputs: dict[str, Tensor]
    shapes: tuple[dict[int, torch.export.Dim], ...] | None
    differences: Callable[[Run], dict[Any, float]]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def program(self, what: str) -> torch.export.ExportedProgram:
        """The network, traced, without source paths.

        Args:
            what: Is tried, for errors.

        Raises:
            ExportError: torch could not export the network; the cause is attached.
        """
        inputs = tuple(self.inputs.values())
        with attempting(what, self.title, inputs[0]):
            program = torch.export.export(self.net, inputs, dynamic_shapes=self.shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        return program

    def check(self, what: str, run: Run, tolerance: float) -> dict[Any, float]:
        """The differences of a file, unless one is too large.

        Raises:
            ExportError: One is larger than `tolerance`, or not a number.
        """
        found = self.differences(run)
        check_differences(what, found, tolerance)
        return found


def plain_subject(net: nn.Module, example_input: Tensor, *, dynamic_batch: bool = True) -> Subject:
    """A network of one tensor to one; of several outputs that called "out" or "logits".

    Args:
        net: Left unchanged.
        example_input: Floating point (B, ...).
        dynamic_batch: Any batch size; else only B.

    Raises:
        TypeError: `example_input` or the network's output is not one floating-point tensor.
        ValueError: The network does not take the shape of `example_input`.
    """
    net = frozen(net)
    title = type(net).__name__
    images, output = traced(net, example_input, dynamic_batch=dynamic_batch)
    if not isinstance(output, Tensor):
        net = one_output(net, images)
    sizes = BATCH_SIZES if dynamic_batch else (len(example_input),)
    return Subject(
        net,
        title,
        {"images": images},
        batch_dimension(dynamic_batch),
        lambda run: relative_differences(run, net, example_input, sizes),
        _told(net, images),
    )


def _told(net: nn.Module, images: Tensor) -> dict[str, str]:
    """What a file says of how a network is fed, as JSON texts; nothing, if the network does not.

    Raises:
        ValueError: Class names are not one an output, or images have other channels.
    """
    told = Preprocessing.of(net)
    if told is None:
        return {}
    shape = tuple(images.shape[1:])
    if len(shape) != 3 or shape[0] != told.image_shape[0]:
        raise ValueError(
            f"example_input has images of shape {shape}, but the network says that it is fed "
            f"{told.image_shape}"
        )
    outputs = torch_runner(net)(images)
    check_class_names(told.class_names, outputs.shape[1] if outputs.dim() == 2 else None)
    return {PREPROCESSING: json.dumps(replace(told, image_shape=shape).record())}


def frozen(module: nn.Module) -> nn.Module:
    """A copy of `module` on the CPU in eval mode; `module` keeps its modes, device and values."""
    return copied(module).cpu().eval()


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
    images, output = traced(net, example_input, dynamic_batch=dynamic_batch, argument=argument)
    if not isinstance(output, Tensor):
        name, given = type(net).__name__, type(output).__name__
        raise TypeError(f"{name} returns {given}; export takes one tensor to one")
    return images


def traced(
    net: nn.Module,
    example_input: Tensor,
    *,
    dynamic_batch: bool = True,
    argument: str = "example_input",
) -> tuple[Tensor, Any]:
    """As `traceable`, of a network that returns anything; and what it returned.

    Raises:
        TypeError: `example_input` is not a floating-point tensor.
        ValueError: As `traceable`.
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
    return images, output


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


def relative_difference(found: Tensor, right: Tensor) -> float:
    """Max |found - right| / max |right| over what is finite; 0 where both are equal.

    Infinite where a value is finite in one of them only, or not a number.
    """
    if torch.equal(found, right):
        return 0.0
    finite = right.isfinite()
    if not torch.equal(found.isfinite(), finite) or not torch.equal(found[~finite], right[~finite]):
        return float("inf")
    return ((found - right)[finite].abs().max() / right[finite].abs().max()).item()


def relative_differences(
    run: Run, net: nn.Module, example_input: Tensor, batch_sizes: tuple[int, ...]
) -> dict[int, float]:
    """Per batch size, how far `run` is from `net`: the larger over `MAGNITUDES`."""
    reference = torch_runner(net)
    worst = {}
    for batch_size in batch_sizes:
        inputs = [probe(example_input, batch_size, magnitude) for magnitude in MAGNITUDES]
        worst[batch_size] = max(relative_difference(run(x), reference(x)) for x in inputs)
    return worst


def check_differences(what: str, differences: Mapping[Any, float], tolerance: float) -> None:
    """Compare relative differences with `tolerance`.

    Args:
        what: Was compared with torch.
        differences: By batch size or domain.
        tolerance: The largest one allowed.

    Raises:
        ExportError: One is larger, or not a number.
    """
    over = {key: d for key, d in differences.items() if not d <= tolerance}
    if over:
        shown = (
            f"{d:.2e} {'at batch' if isinstance(k, int) else 'for'} {k}" for k, d in over.items()
        )
        raise ExportError(
            f"{what} differs from torch by {', '.join(shown)} (largest difference over largest "
            f"output); tolerance={tolerance:g}. Nothing was written. Weights that are not finite "
            "or of 16 bits and random numbers in forward do that; try net.float() or a "
            "larger tolerance"
        )


@contextmanager
def attempting(what: str, title: str, example_input: Tensor) -> Iterator[None]:
    """Say what failed on which network.

    Raises:
        ExportError: The block raised; the cause is attached.
    """
    try:
        yield
    except Exception as error:
        shape = ", ".join(["batch", *map(str, example_input.shape[1:])])
        dtype = example_input.dtype
        other = "" if dtype == torch.float32 else f" and dtype {dtype}; try net.float()"
        raise ExportError(
            f"{what} failed on {title} with an input of shape ({shape}){other}: {error}"
        ) from error
