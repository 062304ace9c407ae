"""`weightfold export`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro


@dataclass(frozen=True)
class Export:
    """Write the deployed network of a run to files, check them against torch, and time them.

    Files are written with any batch size allowed; their input is
    (pixel / 255 - mean) / std per channel. Latencies are of one image.
    """

    source: tyro.conf.Positional[Path]
    """Folder of a finished run ('weightfold train', or one in runs/ of a comparison), or one that
    wf.save wrote."""

    folder: Path
    """Where the files go; made if missing."""

    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx", "torch")
    """onnx: model.onnx; torch: model.pt2, for torch.export.load."""

    int8: bool = False
    """Also quantize to INT8 after training: int8-static.onnx, compared with float32.onnx."""

    int8_aware: bool = False
    """Also fine-tune in INT8: int8-aware.onnx, beside the files of --int8."""

    int8_steps: int = 200
    """Training steps of --int8-aware."""

    int8_lr: float = 1e-4
    """Learning rate of --int8-aware."""

    weights: Literal["last", "best"] = "last"
    """Of the run's last or best epoch."""

    model: str | None = None
    """The network's spec, needed for a folder of wf.save, and for a run of a module:function of
    yours, which no file may run by itself."""

    data: str | None = None
    """Data set to test and calibrate with; none: the run's own. Needed for a folder of wf.save."""

    data_root: Path | None = None
    """Data folder; none: the environment variable WEIGHTFOLD_DATA."""

    threads: int = 1
    """Threads when the files are timed."""

    def run(self) -> None:
        """Write the files and print a table of them."""
        from weightfold.lab.shipping import Quantizing, Source, export_run

        rows = export_run(
            Source(self.source, self.weights, self.model, self.data, self.data_root),
            self.folder,
            formats=self.formats,
            int8=Quantizing(self.int8, self.int8_aware, self.int8_steps, self.int8_lr),
            threads=self.threads,
        )
        _print(rows, self.threads)


def _print(rows: Sequence[Mapping[str, Any]], threads: int) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"latency: median of one image on {threads} thread{'s' * (threads > 1)}"
    columns = ("bytes", "from torch", "test accuracy", "ms", "10% to 90%")
    table = Table("file", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["file"],
            f"{row['bytes']:,}" if "bytes" in row else "",
            f"{row['from_torch']:.1e}" if "from_torch" in row else "",
            f"{row['test_accuracy']:.2%}",
            f"{row['median_ms']:.3f}",
            f"{row['p10_ms']:.3f} to {row['p90_ms']:.3f}",
        )
    Console().print(table)
