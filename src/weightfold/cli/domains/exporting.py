"""What `weightfold domains export` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from weightfold.cli.domains.export import Export
from weightfold.cli.domains.inputs import open_bundle
from weightfold.core.store import file_stem
from weightfold.export import to_exported_program, to_onnx
from weightfold.export.domains import to_executorch, to_onnx_per_domain
from weightfold.export.runners import torch_runner
from weightfold.export.subject import BATCH_SIZES, check_differences, relative_differences
from weightfold.files import write_json
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.net import SharedNet
from weightfold.train import session
from weightfold.train.checkpoint import load_weights, save_weights

Row = dict[str, Any]
"""A file: its name, domains, bytes, and relative difference from torch (None: it has no output)."""


def export(asked: Export) -> None:
    """Write the files of a format, and a table of them.

    Raises:
        ExportError: A file computes something else than torch.
        KeyError: No such domain.
        ValueError: `fold_bn` with another format than "plain", or a bundle that does not tell its
            domains' image shapes.
    """
    if asked.fold_bn and asked.format != "plain":
        raise ValueError(f"fold_bn=True is for --format plain, not {asked.format}")
    bundle, model, spec = open_bundle(asked.source, asked.model)
    names = list(asked.domains) or bundle.domains
    net = bundle.load(model, names).eval()
    assert isinstance(net, SharedNet)
    examples = {name: torch.zeros(1, *_shape(bundle, name)) for name in names}
    asked.folder.mkdir(parents=True, exist_ok=True)
    rows = FORMATS[asked.format](net, examples, asked)
    told = {name: bundle.about[name] | {"classes": bundle.classes[name]} for name in names}
    record = {"model": spec, "format": asked.format, "domains": told, "files": rows}
    write_json(asked.folder / "export.json", record | {"session": session()})
    table = Table("file", "domains", "bytes", "from torch")
    for row in rows:
        apart = "" if row["from_torch"] is None else f"{row['from_torch']:.1e}"
        table.add_row(row["file"], ", ".join(row["domains"]), f"{row['bytes']:,}", apart)
    Console().print(table)


def _shape(bundle: Bundle, name: str) -> list[int]:
    told = bundle.preprocessing[name]
    if "image_shape" not in told:
        raise ValueError(
            f"{bundle.folder} does not say the image_shape of {name!r}; set net.about[{name!r}] "
            "before wf.save"
        )
    return told["image_shape"]


def _plain(net: SharedNet, examples: dict[str, torch.Tensor], asked: Export) -> list[Row]:
    """A safetensors file per domain, read again into a network that is compared with `net`."""
    rows = []
    for name, example in examples.items():
        path = asked.folder / f"{file_stem(name)}.safetensors"
        plain = net.deploy(domain=name, fold_bn=asked.fold_bn).eval()
        save_weights(plain, path)
        load_weights(plain.apply(_blank), path)
        differences = relative_differences(
            torch_runner(plain), _Domain(net, name), example, BATCH_SIZES
        )
        check_differences(path.name, differences, asked.tolerance)
        rows.append(_row(path, [name], path.stat().st_size, differences))
    return rows


def _one_graph(net: SharedNet, examples: dict[str, torch.Tensor], asked: Export) -> list[Row]:
    """One file that takes the domain of each image."""
    shapes = {name: tuple(example.shape[1:]) for name, example in examples.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"one graph takes images of one size, the domains have {shapes}; give --domains of one "
            "size, or --format onnx-per-domain"
        )
    onnx = asked.format == "onnx"
    write = to_onnx if onnx else to_exported_program
    path = asked.folder / ("domains.onnx" if onnx else "domains.pt2")
    report = write(net, next(iter(examples.values())), path, tolerance=asked.tolerance)
    return [_row(path, list(examples), report.bytes, report.max_relative_difference)]


def _per_domain(net: SharedNet, examples: dict[str, torch.Tensor], asked: Export) -> list[Row]:
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


def _executorch(net: SharedNet, examples: dict[str, torch.Tensor], asked: Export) -> list[Row]:
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


FORMATS = {
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


@torch.no_grad()
def _blank(module: nn.Module) -> None:
    """Nothing of what was there survives, so that a file is checked and not the memory."""
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        tensor.zero_()
