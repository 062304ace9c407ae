"""torch.export: one .pt2 file, loaded again and compared before it gets its name."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.export.checks import (
    BATCH_SIZES,
    attempting,
    batch_dimension,
    check_differences,
    frozen,
    relative_differences,
    traceable,
)
from weightfold.export.files import checked, staged
from weightfold.export.runners import program_runner


@dataclass(frozen=True)
class ProgramReport:
    """What was written; `dataclasses.asdict` of it is JSON.

    Attributes:
        path: The file.
        bytes: Its size.
        max_relative_difference: Per batch size, max |loaded - module| / max |module|, the larger
            one over inputs of standard deviation 1 and 1000. 0 means bit for bit.
    """

    path: str
    bytes: int
    max_relative_difference: dict[int, float]


def to_exported_program(
    module: nn.Module,
    example_input: Tensor,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    tolerance: float = 1e-5,
) -> ProgramReport:
    """Write a network in eval mode to a .pt2 file (`torch.export.save`).

    Read it with `torch.export.load(path).module()`. The file holds noise as its example input and
    no source paths. For `quantize_aware` networks, import torchao before loading, which registers
    their operators.

    Args:
        module: Takes one tensor and returns one; left unchanged.
        example_input: Floating point (B, ...); its shape and dtype count, not its values. Any B.
        path: The file to write, ending in .pt2; its folder exists.
        dynamic_batch: The program takes any batch size; else only B.
        tolerance: Largest relative difference allowed between the loaded program and the module.

    Raises:
        FileNotFoundError: The folder of `path` is missing.
        TypeError: `example_input` or the network's output is not one floating-point tensor.
        ValueError: The network does not take the shape of `example_input`, or `path` does not
            end in .pt2.
        ExportError: torch could not export the network (the cause is attached), or the program
            computes something else. Nothing is written then.
    """
    if checked(path).suffix != ".pt2":
        raise ValueError(f"path={str(path)!r} must end in .pt2")
    net = frozen(module)
    images = traceable(net, example_input, dynamic_batch=dynamic_batch)
    batch_sizes = BATCH_SIZES if dynamic_batch else (len(example_input),)
    shapes = batch_dimension(dynamic_batch)
    with attempting("torch.export.export", net, example_input):
        program = torch.export.export(net, (images,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    with staged(path) as temporary:
        write_program(program, temporary)
        differences = relative_differences(
            program_runner(temporary), net, example_input, batch_sizes
        )
        check_differences("the loaded program", differences, tolerance)
    return ProgramReport(str(path), Path(path).stat().st_size, differences)


def write_program(
    program: torch.export.ExportedProgram, path: Path, extra_files: dict[str, Any] | None = None
) -> None:
    """`torch.export.save`, by way of memory: on a full disk torch's writer aborts the process.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=extra_files)
    path.write_bytes(content.getbuffer())
