"""torch.export: one .pt2 file, loaded again and compared before it gets its name."""

import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from weightfold.export.files import checked, staged
from weightfold.export.report import ExportReport
from weightfold.export.routed import RoutedNet, subject_of
from weightfold.export.runners import program_runner
from weightfold.files import write_bytes


def to_exported_program(
    net: nn.Module,
    example_input: Tensor,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    tolerance: float = 1e-5,
) -> ExportReport:
    """Write a network in eval mode to a .pt2 file (`torch.export.save`).

    Read it with `torch.export.load(path).module()`. The file holds noise as its example input and
    no source paths. For `quantize_aware` networks, import torchao before loading, which registers
    their operators.

    How the network is fed (`weightfold.Preprocessing`), if it says so, is the extra file
    "preprocessing.json". Inputs and output of a SharedNet are those of `to_onnx`; what the metadata
    hold there is the extra file "domains.json" here.

    Args:
        net: Takes one tensor and returns one; a Charted net is deployed. Left unchanged.
        example_input: Floating point (B, ...); its shape and dtype count, not its values. Any B.
        path: The file to write, ending in .pt2; its folder exists.
        dynamic_batch: The program takes any batch size; else only B. A SharedNet's takes any.
        tolerance: Largest relative difference allowed between the loaded program and the network.

    Raises:
        FileNotFoundError: The folder of `path` is missing.
        TypeError: `example_input` or the network's output is not one floating-point tensor.
        ValueError: As of `to_onnx`, or `path` does not end in .pt2.
        ExportError: torch could not export the network (the cause is attached), or the program
            computes something else. Nothing is written then.
    """
    if checked(path).suffix != ".pt2":
        raise ValueError(f"path={str(path)!r} must end in .pt2")
    subject = subject_of(net, example_input, dynamic_batch=dynamic_batch)
    program = subject.program("torch.export.export")
    extra = {f"{name}.json": text for name, text in subject.metadata.items()}
    if isinstance(subject.net, RoutedNet):
        told = {name: json.loads(text) for name, text in subject.metadata.items()}
        extra = {"domains.json": json.dumps(told)}
    with staged(path) as temporary:
        content = io.BytesIO()  # by way of memory: on a full disk torch's writer aborts the process
        torch.export.save(program, content, extra_files=extra)
        write_bytes(temporary, content.getbuffer())
        differences = subject.check("the loaded program", program_runner(temporary), tolerance)
    return ExportReport(str(path), Path(path).stat().st_size, differences)
