"""`weightfold export`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from weightfold.cli.options import DataRoot


@dataclass(frozen=True)
class Export:
    """Write the deployed network of a run to files, check them against torch, and time them.

    Files are written with any batch size allowed. Their images are (pixel / 255 - mean) / std per
    channel, by the mean and std that go with the network; export.json and the files say them. What
    cannot be written is told at the end, and keeps nothing else from being there. Latencies are of
    one image.
    """

    source: tyro.conf.Positional[Path]
    """Folder of a finished run ('weightfold train', or one in runs/ of a comparison), or one that
    wf.save wrote."""

    folder: Path
    """Where the files go; made if missing."""

    formats: tuple[Literal["onnx", "torch", "safetensors"], ...] = ("onnx", "torch")
    """onnx: model.onnx; torch: model.pt2, for torch.export.load; safetensors: model.safetensors,
    the weights under the names of the plain network, for its load_state_dict."""

    tolerance: float = 1e-5
    """Largest relative difference from torch that is accepted of these files."""

    int8: bool = False
    """Also quantize to INT8 after training: int8-static.onnx, compared with float32.onnx."""

    int8_aware: bool = False
    """Also fine-tune in INT8: int8-aware.onnx, beside the files of --int8."""

    int8_steps: int = 200
    """Training steps of --int8-aware."""

    int8_lr: float = 1e-4
    """Learning rate of --int8-aware."""

    int8_tolerance: float = 0.1
    """Largest relative difference from torch that is accepted of int8-aware.onnx: values midway
    between two of 256 levels may be rounded either way."""

    cpu: Literal["auto", "x86", "x86-without-vnni", "arm"] = "auto"
    """Processor that the INT8 files are for. x86: with VNNI or AMX; x86-without-vnni: weights of 7
    bits, for the sums of others saturate there, which costs accuracy; auto: this machine's."""

    weights: Literal["last", "best"] = "last"
    """Of the run's last or best epoch."""

    model: str | None = None
    """The network's spec, needed for a folder of wf.save, and for a run of a module:function of
    yours, which no file may run by itself."""

    data: str | None = None
    """Data set to test and calibrate with; none: the run's own. Needed for a folder of wf.save."""

    data_root: DataRoot = None

    mean: tuple[float, ...] = ()
    """How the network is fed, where the folder does not say (wf.save without preprocessing): a
    number a channel, of values from 0 to 1."""

    std: tuple[float, ...] = ()
    """See mean."""

    value_range: tuple[float, float] = (0.0, 1.0)
    """See mean: what black and white are, before mean and std are applied. -1 1: a network that
    expects 2 * x - 1."""

    threads: int = 1
    """Threads when the files are timed."""

    def run(self) -> None:
        """Write the files and print a table of them."""
        from weightfold.export import ExportError
        from weightfold.lab.shipping import Quantizing, Source, export_run

        rows = export_run(
            Source(
                self.source,
                self.weights,
                self.model,
                self.data,
                self.data_root,
                mean=self.mean,
                std=self.std,
                value_range=self.value_range,
            ),
            self.folder,
            formats=self.formats,
            int8=Quantizing(
                self.int8,
                self.int8_aware,
                self.int8_steps,
                self.int8_lr,
                self.int8_tolerance,
                None if self.cpu == "auto" else self.cpu,
            ),
            tolerance=self.tolerance,
            threads=self.threads,
        )
        _print([row for row in rows if "failed" not in row], self.threads)
        if warning := next((row["warning"] for row in rows if "warning" in row), None):
            print(f"INT8: {warning}")
        if failed := [f"{row['file']}: {row['failed']}" for row in rows if "failed" in row]:
            raise ExportError("; ".join(failed))


def _print(rows: Sequence[Mapping[str, Any]], threads: int) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"latency: median of one image on {threads} thread{'s' * (threads > 1)}"
    tested = next((key for row in rows for key in row if key.startswith("test_")), "test")
    columns = ("bytes", "from torch", tested.replace("_", " "), "ms", "10% to 90%")
    table = Table(title=title, title_justify="left")
    table.add_column("file", no_wrap=True, min_width=17)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["file"],
            f"{row['bytes']:,}" if "bytes" in row else "",
            f"{row['from_torch']:.1e}" if "from_torch" in row else "",
            row.get("test", ""),
            f"{row['median_ms']:.3f}" if "median_ms" in row else "",
            f"{row['p10_ms']:.3f} to {row['p90_ms']:.3f}" if "p10_ms" in row else "",
        )
    Console().print(table)
