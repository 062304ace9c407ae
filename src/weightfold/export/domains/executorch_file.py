"""ExecuTorch: the plain network of one domain as a .pte file for phones and boards."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.export.extras import need, quiet
from weightfold.export.files import checked
from weightfold.export.report import ExportReport
from weightfold.export.routed import lowered
from weightfold.export.runners import Runner
from weightfold.export.subject import attempting, plain_subject
from weightfold.files import replacing


def to_executorch(
    net: nn.Module,
    example_input: Tensor,
    path: str | Path,
    *,
    domain: str,
    tolerance: float = 1e-5,
) -> ExportReport:
    """Write one domain's plain network to a .pte file, its layers given to XNNPACK.

    Args:
        net: A SharedNet, or charts on one; left unchanged and exported in eval mode.
        example_input: Floating point (B, C, H, W); shape and dtype count. The file takes this B.
        path: The file to write; its folder exists.
        domain: Whose network.
        tolerance: Largest relative difference allowed between ExecuTorch and torch.

    Raises:
        ImportError: The extra is not installed (`weightfold[executorch]`).
        FileNotFoundError: The folder of `path` is missing.
        KeyError: No such domain; the message lists them.
        TypeError: `net` is no SharedNet, or `example_input` no floating-point tensor.
        ValueError: The net does not take the shape of `example_input`.
        ExportError: ExecuTorch could not take the network (the cause is attached), or the file
            computes something else. Nothing is written then.
    """
    path = checked(path)
    with quiet():
        need("executorch", "executorch.exir", "executorch.runtime")
    plain = lowered(net).deploy(domain=domain, fold_bn=False)
    subject = plain_subject(plain, example_input, dynamic_batch=False)
    what = "ExecuTorch's export"
    program = subject.program(what)
    with attempting(what, subject.title, example_input), quiet():
        content = _content(program)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        with quiet():
            found = subject.check("the ExecuTorch file", _runner(temporary), tolerance)
    return ExportReport(str(path), path.stat().st_size, found)


def _content(program: torch.export.ExportedProgram) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # type: ignore[import]
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower  # type: ignore[import]

    edge: Any = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return edge.to_executorch().buffer


def _runner(path: Path) -> Runner:
    from executorch.runtime import Runtime  # type: ignore[import]

    method = Runtime.get().load_program(path).load_method("forward")
    return torch.no_grad()(lambda images: method.execute([images])[0])
