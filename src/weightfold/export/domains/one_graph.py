"""One graph for all domains, with a domain per image: ONNX and torch.export."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.export.checks import ExportError, attempting, frozen, probe, traceable
from weightfold.export.domains.routed import RoutedNet, lowered
from weightfold.export.extras import need
from weightfold.export.files import checked, staged
from weightfold.export.onnx_file import file_bytes, operators
from weightfold.export.program import write_program
from weightfold.methods.share.net import SharedNet

BATCH_SIZES = (1, 2, 7)
"""Sizes of the batches, of one domain and mixed, on which a file is compared with the net."""

LARGEST_BATCH = 2**20
"""Of a .pt2 file: torch.export wants a bound for sizes that add up."""

Run = Callable[[Tensor, Tensor], Tensor]
"""Images and ids to logits."""


@dataclass(frozen=True)
class OneGraphReport:
    """What was written; `dataclasses.asdict` of it is JSON.

    Attributes:
        path: The file.
        bytes: Its size.
        operators: How many nodes of each kind; empty for a .pt2 file.
        max_relative_difference: Per domain, max |file - net| / max |net| over its images in batches
            of one domain and of several.
    """

    path: str
    bytes: int
    operators: dict[str, int]
    max_relative_difference: dict[str, float]


def to_onnx(
    net: nn.Module, example_input: Tensor, path: str | Path, *, tolerance: float = 1e-5
) -> OneGraphReport:
    """Write all domains to one .onnx file with inputs "images" and "domain", output "logits".

    "images" is (B, C, H, W), "domain" int64 (B,) with the position of each image's domain; any B
    and any mixture; ids out of range are an error. "logits" is (B, most classes), -inf where the
    image's domain lacks the class. The file's metadata holds JSON: "domains" (names in the order of
    ids), "classes" (numbers in the same order) and "about" (what the net keeps of each domain).

    Args:
        net: A SharedNet, or charts on one; left unchanged and exported in eval mode.
        example_input: Floating point (B, C, H, W); its shape and dtype count, not its values.
        path: The file to write; its folder exists.
        tolerance: Largest relative difference allowed between ONNX Runtime and torch.

    Raises:
        ImportError: The extra is not installed (`weightfold[export]`).
        FileNotFoundError: The folder of `path` is missing.
        TypeError: `net` is no SharedNet, or `example_input` no floating-point tensor.
        ValueError: The net does not take the shape of `example_input`, or has a batch norm without
            running statistics.
        ExportError: torch could not export the net (the cause is attached), or the file computes
            something else. Nothing is written then.
    """
    need("export", "onnx", "onnxscript", "onnxruntime")
    import onnx
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    checked(path)
    shared, program = _program(net, example_input, "torch.onnx.export")
    with attempting("torch.onnx.export", shared, example_input):
        names = {"input_names": ["images", "domain"], "output_names": ["logits"]}
        written = torch.onnx.export(program, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
        assert written is not None
    ClearMetadataAndDocStringPass()(written.model)
    written.model.metadata_props.update(metadata(shared))
    with staged(path) as temporary:
        written.save(temporary)
        onnx.checker.check_model(temporary, full_check=True)
        differences = _differences(_onnx_run(temporary), shared, example_input)
        _check("the ONNX file", differences, tolerance)
    kinds = operators(onnx.load(path, load_external_data=False))
    return OneGraphReport(str(path), file_bytes(path), kinds, differences)


def to_exported_program(
    net: nn.Module, example_input: Tensor, path: str | Path, *, tolerance: float = 1e-5
) -> OneGraphReport:
    """Write all domains to one .pt2 file: `torch.export.load(path).module()(images, domain)`.

    Inputs and output are those of `to_onnx`; loading needs torch alone. What the metadata hold
    there is the file's extra file "domains.json" here.

    Args:
        net: A SharedNet, or charts on one; left unchanged and exported in eval mode.
        example_input: Floating point (B, C, H, W); its shape and dtype count, not its values.
        path: The file to write, ending in .pt2; its folder exists.
        tolerance: Largest relative difference allowed between the loaded program and the net.

    Raises:
        FileNotFoundError: The folder of `path` is missing.
        TypeError: `net` is no SharedNet, or `example_input` no floating-point tensor.
        ValueError: As of `to_onnx`, or `path` does not end in .pt2.
        ExportError: torch could not export the net (the cause is attached), or the program
            computes something else. Nothing is written then.
    """
    if checked(path).suffix != ".pt2":
        raise ValueError(f"path={str(path)!r} must end in .pt2")
    shared, program = _program(net, example_input, "torch.export.export")
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    about = json.dumps({name: json.loads(text) for name, text in metadata(shared).items()})
    with staged(path) as temporary:
        write_program(program, temporary, {"domains.json": about})
        loaded = torch.no_grad()(torch.export.load(temporary).module())
        differences = _differences(loaded, shared, example_input)
        _check("the loaded program", differences, tolerance)
    return OneGraphReport(str(path), Path(path).stat().st_size, {}, differences)


def metadata(net: SharedNet) -> dict[str, str]:
    """What a file says of its domains, as JSON texts."""
    values = {"domains": net.domains, "classes": list(net.classes.values()), "about": net.about}
    return {name: json.dumps(value) for name, value in values.items()}


def _program(
    net: nn.Module, example_input: Tensor, what: str
) -> tuple[SharedNet, torch.export.ExportedProgram]:
    """The SharedNet in eval mode on the CPU, and its one graph."""
    shared: Any = frozen(lowered(net))
    images = traceable(shared.deploy(domain=shared.domains[0]), example_input)
    routed = RoutedNet(shared)
    ids = torch.arange(len(images)) % len(shared.domains)
    batch = torch.export.Dim("batch", max=LARGEST_BATCH)
    with attempting(what, shared, example_input):
        shapes = ({0: batch}, {0: batch})
        return shared, torch.export.export(routed, (images, ids), dynamic_shapes=shapes)


def _onnx_run(path: str | Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor, ids: Tensor) -> Tensor:
        given = {"images": images.numpy(), "domain": ids.numpy()}
        return torch.from_numpy(session.run(["logits"], given)[0])

    return run


@torch.no_grad()
def _differences(run: Run, net: SharedNet, example_input: Tensor) -> dict[str, float]:
    """Per domain, the largest difference of its images over the net's largest logit."""
    count = len(net.domains)
    worst = dict.fromkeys(net.domains, 0.0)
    for size in BATCH_SIZES:
        images = probe(example_input, size)
        for first in range(count):
            for ids in (torch.full((size,), first), (first + torch.arange(size)) % count):
                found, right = run(images, ids), net(images, domain=ids)
                for index in ids.unique().tolist():
                    name = net.domains[index]
                    difference = _difference(found[ids == index], right[ids == index])
                    worst[name] = max(worst[name], difference)
    return worst


def _difference(found: Tensor, right: Tensor) -> float:
    """Infinite where the classes present differ, or an output is not a number."""
    missing = right.shape[1] < found.shape[1]
    if missing:
        right = nn.functional.pad(right, (0, found.shape[1] - right.shape[1]), value=-torch.inf)
    present = right.isfinite()
    if not torch.equal(found.isfinite(), present) or not torch.equal(found == -torch.inf, ~present):
        return float("inf")
    error = (found - right)[present].abs().max()
    return (error / right[present].abs().max().clamp(min=1e-30)).item()


def _check(what: str, differences: Mapping[str, float], tolerance: float) -> None:
    over = {name: d for name, d in differences.items() if not d <= tolerance}
    if over:
        shown = ", ".join(f"{d:.2e} for {name}" for name, d in over.items())
        raise ExportError(
            f"{what} differs from torch by {shown} (largest difference over largest output); "
            f"tolerance={tolerance:g}. Nothing was written"
        )
