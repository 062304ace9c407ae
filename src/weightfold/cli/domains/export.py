"""`weightfold domains export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from weightfold.cli.options import BundleModel


@dataclass(frozen=True)
class Export:
    """Write a bundle's domains to files, and check them against torch.

    Files take any batch size unless said; their images are (pixel / 255 - mean) / std per channel,
    of the mean, std and shape in export.json beside them.
    """

    source: tyro.conf.Positional[Path]
    """A bundle, or the folder of 'domains train' or of one of its strategies that holds it."""

    folder: Path
    """Where the files go; made if missing."""

    format: Literal["onnx", "onnx-per-domain", "torch-export", "executorch", "plain"] = "onnx"
    """onnx: one file with an input 'domain' beside the images, the domain's position per image;
    onnx-per-domain: a file per domain over one file of weights; torch-export: one .pt2 file with an
    input for the domain; executorch: a .pte file per domain, for one image at a time; plain: a
    domain's plain network as safetensors, without the others."""

    domains: tuple[str, ...] = ()
    """Which; none: all. Their order is that of the positions."""

    fold_bn: bool = False
    """Fold batch norm into the convolutions (plain)."""

    tolerance: float = 1e-5
    """Largest relative difference from torch that is accepted."""

    model: BundleModel = None

    def run(self) -> None:
        """Write the files, and print how far they are from torch."""
        from rich.console import Console
        from rich.table import Table

        from weightfold.export.domains.bundle_files import export_bundle

        rows = export_bundle(
            self.source,
            self.folder,
            format=self.format,
            domains=self.domains,
            fold_bn=self.fold_bn,
            tolerance=self.tolerance,
            model=self.model,
        )
        table = Table("file", "domains", "bytes", "from torch")
        for row in rows:
            apart = "" if row["from_torch"] is None else f"{row['from_torch']:.1e}"
            table.add_row(row["file"], ", ".join(row["domains"]), f"{row['bytes']:,}", apart)
        Console().print(table)
