"""ExecuTorch: the plain network of one domain as a .pte file for phones and boards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.export.checks import (
    MAGNITUDES,
    attempting,
    check_differences,
    frozen,
    probe,
    relative_difference,
    traceable,
)
from weightfold.export.domains.routed import lowered
from weightfold.export.extras import need, quiet
from weightfold.export.files import checked
from weightfold.files import replacing


@dataclass(frozen=True)
class ExecutorchReport:
    """What was written; `dataclasses.asdict` of it is JSON.

    Attributes:
        path: The file.
        bytes: Its size.
        max_relative_difference: Max |ExecuTorch - torch| / max |torch|, the larger one over inputs
            of standard deviation 1 and 1000.
    """

    path: str
    bytes: int
    max_relative_difference: float


def to_executorch(
    net: nn.Module,
    example_input: Tensor,
    path: str | Path,
    *,
    domain: str,
    tolerance: float = 1e-5,
) -> ExecutorchReport:
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
    plain = frozen(lowered(net).deploy(domain=domain, fold_bn=False))
    images = traceable(plain, example_input, dynamic_batch=False)
    with attempting("ExecuTorch's export", plain, example_input), quiet():
        content = _program(plain, images)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        with quiet():
            found = [_difference(temporary, plain, images, scale) for scale in MAGNITUDES]
        check_differences("the ExecuTorch file", {len(images): max(found)}, tolerance)
    return ExecutorchReport(str(path), path.stat().st_size, max(found))


def _program(plain: nn.Module, images: Tensor) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # type: ignore[import]
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower  # type: ignore[import]

    exported = torch.export.export(plain, (images,))
    edge: Any = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    return edge.to_executorch().buffer


@torch.no_grad()
def _difference(path: Path, plain: nn.Module, example: Tensor, magnitude: float) -> float:
    from executorch.runtime import Runtime  # type: ignore[import]

    images = probe(example, len(example), magnitude)
    method = Runtime.get().load_program(path).load_method("forward")
    return relative_difference(method.execute([images])[0], plain(images))
