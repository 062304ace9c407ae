"""ONNX: one file, checked in ONNX Runtime against torch before it gets its name."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.arguments import unwrapped
from weightfold.export.extras import need
from weightfold.export.files import checked, staged
from weightfold.export.report import ExportReport
from weightfold.export.routed import subject_of
from weightfold.export.runners import onnx_runner
from weightfold.export.subject import Subject, attempting, check_differences
from weightfold.hints import check_arguments


def to_onnx(
    net: nn.Module,
    example_input: Tensor,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    tolerance: float = 1e-5,
) -> ExportReport:
    """Write a network to an .onnx file, with its weights inside (beside it above 2 GB).

    >>> import tempfile, torch, weightfold as wf
    >>> model, folder = torch.nn.Linear(3, 2), tempfile.mkdtemp()
    >>> wf.to_onnx(model, torch.zeros(1, 3), f"{folder}/model.onnx").operators
    {'Gemm': 1}

    It is exported in eval mode (torch's exporter folds batch norms into the convolutions), without
    the source paths that the exporter would note on every node. The input is called "images" and
    the output "logits". How the network is fed (`weightfold.Preprocessing`), if it says so, is JSON
    under "preprocessing" in the file's metadata.

    Of a SharedNet all domains are in the file: a second input "domain", int64 (B,), has the
    position of each image's domain; any mixture; ids out of range are an error. "logits" is then
    (B, most classes), -inf where the image's domain lacks the class, and the file's metadata hold
    JSON: "domains" (names in the order of ids), "classes" (numbers in the same order) and "about"
    (what the net keeps of each domain).

    Args:
        net: Takes one tensor and returns one; a Charted net is deployed. Left unchanged.
        example_input: Floating point (B, ...); its shape and dtype count, not its values. Any B.
        path: The file to write; its folder exists.
        dynamic_batch: The file takes any batch size; else only B. A SharedNet's takes any.
        tolerance: Largest relative difference allowed between ONNX Runtime and torch. Files of
            `quantize_aware` networks need about 0.1: a value that lies midway between two of the
            256 levels may be rounded the other way.

    Raises:
        ImportError: The extra is not installed (`weightfold[export]`).
        FileNotFoundError: The folder of `path` is missing.
        TypeError: `example_input` or the network's output is not one floating-point tensor.
        ValueError: The network does not take the shape of `example_input`; or a SharedNet has a
            batch norm without running statistics.
        ExportError: torch could not export the network (the cause is attached), or the file
            computes something else. Nothing is written then.
    """
    need("export", "onnx", "onnxscript", "onnxruntime")
    import onnx

    unwrapped(net)
    check_arguments(to_onnx, dynamic_batch=dynamic_batch, tolerance=tolerance, path=path)
    checked(path)
    subject = subject_of(net, example_input, dynamic_batch=dynamic_batch)
    program = traced_onnx(subject)
    program.model.metadata_props.update(subject.metadata)
    with staged(path) as temporary:
        program.save(temporary)
        with attempting("ONNX Runtime", subject.title, next(iter(subject.inputs.values()))):
            onnx.checker.check_model(temporary, full_check=True)
            differences = subject.differences(onnx_runner(temporary))
        check_differences("the ONNX file", differences, tolerance)
    model = onnx.load(path, load_external_data=False)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return ExportReport(str(path), file_bytes(path), differences, opset, operators(model))


def traced_onnx(subject: Subject, *, optimize: bool = True) -> torch.onnx.ONNXProgram:
    """The network as an ONNX graph, its output called "logits".

    Raises:
        ExportError: torch could not export it; the cause is attached.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    what = "torch.onnx.export"
    exported = subject.program(what)
    with attempting(what, subject.title, next(iter(subject.inputs.values()))):
        program = torch.onnx.export(
            exported,  # type: ignore[arg-type]
            dynamo=True,
            input_names=list(subject.inputs),
            output_names=["logits"],
            optimize=optimize,
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
