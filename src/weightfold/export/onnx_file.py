"""ONNX: one file, checked in ONNX Runtime against torch before it gets its name."""

from collections import Counter
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
from weightfold.export.extras import need
from weightfold.export.files import checked, staged
from weightfold.export.runners import onnx_runner


@dataclass(frozen=True)
class OnnxReport:
    """What was written; `dataclasses.asdict` of it is JSON.

    Attributes:
        path: The file.
        bytes: Its size.
        opset: Version of the ONNX operator set.
        operators: How many nodes of each kind.
        max_relative_difference: Per batch size, max |ONNX Runtime - torch| / max |torch|, the
            larger one over inputs of standard deviation 1 and 1000.
    """

    path: str
    bytes: int
    opset: int
    operators: dict[str, int]
    max_relative_difference: dict[int, float]


def to_onnx(
    module: nn.Module,
    example_input: Tensor,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    tolerance: float = 1e-5,
) -> OnnxReport:
    """Write a network to an .onnx file, with its weights inside (beside it above 2 GB).

    It is exported in eval mode (torch's exporter folds batch norms into the convolutions), without
    the source paths that the exporter would note on every node. The input is called "images" and
    the output "logits".

    Args:
        module: Takes one tensor and returns one; left unchanged.
        example_input: Floating point (B, ...); its shape and dtype count, not its values. Any B.
        path: The file to write; its folder exists.
        dynamic_batch: The file takes any batch size; else only B.
        tolerance: Largest relative difference allowed between ONNX Runtime and torch. Files of
            `quantize_aware` networks need about 0.1: a value that lies midway between two of the
            256 levels may be rounded the other way.

    Raises:
        ImportError: The extra is not installed (`weightfold[export]`).
        FileNotFoundError: The folder of `path` is missing.
        TypeError: `example_input` or the network's output is not one floating-point tensor.
        ValueError: The network does not take the shape of `example_input`.
        ExportError: torch could not export the network (the cause is attached), or the file
            computes something else. Nothing is written then.
    """
    need("export", "onnx", "onnxscript", "onnxruntime")
    import onnx

    checked(path)
    net = frozen(module)
    images = traceable(net, example_input, dynamic_batch=dynamic_batch)
    batch_sizes = BATCH_SIZES if dynamic_batch else (len(example_input),)
    with attempting("torch.onnx.export", net, example_input):
        program = _export(net, images, dynamic_batch)
    with staged(path) as temporary:
        program.save(temporary)
        onnx.checker.check_model(temporary, full_check=True)
        differences = relative_differences(onnx_runner(temporary), net, example_input, batch_sizes)
        check_differences("the ONNX file", differences, tolerance)
    model = onnx.load(path, load_external_data=False)
    return OnnxReport(
        path=str(path),
        bytes=file_bytes(path),
        opset=next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
        operators=operators(model),
        max_relative_difference=differences,
    )


def _export(net: nn.Module, images: Tensor, dynamic_batch: bool) -> torch.onnx.ONNXProgram:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = torch.onnx.export(
        net,
        (images,),
        dynamo=True,
        dynamic_shapes=batch_dimension(dynamic_batch),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)
    return program


def operators(model: Any) -> dict[str, int]:
    """How many nodes of each kind an onnx.ModelProto has, by name."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def file_bytes(path: str | Path) -> int:
    """Size of an .onnx file and, if there is one, of the file of weights beside it."""
    path = Path(path)
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)
