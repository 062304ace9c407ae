"""A bundle's domains as files of a format, each compared with torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from weightfold.core.part_file import file_stem
from weightfold.export import to_exported_program, to_onnx, to_safetensors
from weightfold.export.domains import to_executorch, to_onnx_per_domain
from weightfold.export.runners import torch_runner
from weightfold.export.subject import BATCH_SIZES, check_differences, relative_differences
from weightfold.files import write_json
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.net import SharedNet
from weightfold.train import session
from weightfold.train.domains.bundles import open_bundle

Format = Literal["onnx", "onnx-per-domain", "torch-export", "executorch", "plain"]

Row = dict[str, Any]
"""A file: its name, domains, bytes, and relative difference from torch (None: it has no output)."""


@dataclass(frozen=True)
class _Asked:
    """What is written, and where."""

    folder: Path
    format: Format
    fold_bn: bool
    tolerance: float


def export_bundle(
    source: Path | str,
    folder: Path | str,
    *,
    format: Format = "onnx",
    domains: Sequence[str] = (),
    fold_bn: bool = False,
    tolerance: float = 1e-5,
    model: str | None = None,
) -> list[Row]:
    """Write the files of a format, and export.json beside them.

    Args:
        source: A bundle, or the folder of a study or of one of its strategies that holds it.
        folder: Made if missing.
        format: "onnx": one file with an input for the domain of each image; "onnx-per-domain": a
            file a domain over one file of weights; "torch-export": one .pt2 file with such an
            input; "executorch": a .pte file a domain, for one image at a time; "plain": a domain's
            plain network as safetensors.
        domains: Which, in the order of their positions; none: all.
        fold_bn: Fold batch norm into the convolutions ("plain").
        tolerance: Largest relative difference from torch that is accepted.
        model: Network spec, for a bundle that does not tell its own.

    Returns:
        A row a file.

    Raises:
        ExportError: A file computes something else than torch.
        KeyError: No such domain.
        ValueError: `fold_bn` with another format than "plain", or a bundle that does not tell its
            domains' image shapes.
    """
    if fold_bn and format != "plain":
        raise ValueError(f"fold_bn=True is for the format plain, not {format}")
    bundle, plain, spec = open_bundle(source, model)
    names = list(domains or bundle.domains)
    net = bundle.load(plain, names).eval()
    assert isinstance(net, SharedNet)
    examples = {name: torch.zeros(1, *_shape(bundle, name)) for name in names}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = FORMATS[format](net, examples, _Asked(folder, format, fold_bn, tolerance))
    told = {name: bundle.about[name] | {"classes": bundle.classes[name]} for name in names}
    record = {"model": spec, "format": format, "domains": told, "files": rows}
    write_json(folder / "export.json", record | {"session": session()})
    return rows


def _shape(bundle: Bundle, name: str) -> list[int]:
    told = bundle.preprocessing[name]
    if "image_shape" not in told:
        raise ValueError(
            f"{bundle.folder} does not say the image_shape of {name!r}; set net.about[{name!r}] "
            "before wf.save"
        )
    return told["image_shape"]


def _plain(net: SharedNet, examples: dict[str, torch.Tensor], asked: _Asked) -> list[Row]:
    """A safetensors file per domain, read again into a network that is compared with `net`."""
    rows = []
    for name, example in examples.items():
        path = asked.folder / f"{file_stem(name)}.safetensors"
        plain = net.deploy(domain=name, fold_bn=asked.fold_bn).eval()
        report = to_safetensors(plain, example, path, tolerance=asked.tolerance)
        differences = relative_differences(
            torch_runner(plain), _Domain(net, name), example, BATCH_SIZES
        )
        check_differences(path.name, differences, asked.tolerance)
        rows.append(_row(path, [name], report.bytes, differences))
    return rows


def _one_graph(net: SharedNet, examples: dict[str, torch.Tensor], asked: _Asked) -> list[Row]:
    """One file that takes the domain of each image."""
    shapes = {name: tuple(example.shape[1:]) for name, example in examples.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"one graph takes images of one size, the domains have {shapes}; give domains of one "
            "size, or the format onnx-per-domain"
        )
    onnx = asked.format == "onnx"
    write = to_onnx if onnx else to_exported_program
    path = asked.folder / ("domains.onnx" if onnx else "domains.pt2")
    report = write(net, next(iter(examples.values())), path, tolerance=asked.tolerance)
    return [_row(path, list(examples), report.bytes, report.max_relative_difference)]


def _per_domain(net: SharedNet, examples: dict[str, torch.Tensor], asked: _Asked) -> list[Row]:
    """A graph per domain with its own weights, and what they share."""
    report = to_onnx_per_domain(net, examples, asked.folder, tolerance=asked.tolerance)
    rows = [
        _row(
            asked.folder / f"{file_stem(name)}.onnx",
            [name],
            size + report.own_bytes[name],
            {name: found},
        )
        for (name, size), found in zip(
            report.graph_bytes.items(), report.max_relative_difference.values(), strict=True
        )
    ]
    shared = {"file": "shared weights", "domains": list(examples), "bytes": report.shared_bytes}
    return [{**shared, "from_torch": None}, *rows]


def _executorch(net: SharedNet, examples: dict[str, torch.Tensor], asked: _Asked) -> list[Row]:
    """A .pte file per domain."""
    rows = []
    for name, example in examples.items():
        path = asked.folder / f"{file_stem(name)}.pte"
        report = to_executorch(net, example, path, domain=name, tolerance=asked.tolerance)
        rows.append(_row(path, [name], report.bytes, report.max_relative_difference))
    return rows


def _row(path: Path, domains: list[str], size: int, differences: Mapping[Any, float]) -> Row:
    worst = max(differences.values())
    return {"file": path.name, "domains": domains, "bytes": size, "from_torch": worst}


FORMATS: Mapping[Format, Callable[[SharedNet, dict[str, torch.Tensor], _Asked], list[Row]]] = {
    "plain": _plain,
    "onnx": _one_graph,
    "torch-export": _one_graph,
    "onnx-per-domain": _per_domain,
    "executorch": _executorch,
}


class _Domain(nn.Module):
    """One domain of a net, as a network of one input."""

    def __init__(self, net: SharedNet, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes)."""
        return self.net(x, domain=self.name)
