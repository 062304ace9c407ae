"""`weightfold export`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightfold.data import Dataset
    from weightfold.timing import Latency

CALIBRATION_IMAGES = 512

Row = dict[str, Any]
"""A file: its name, bytes, relative difference from torch, test accuracy and latencies."""


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
        import torch

        from weightfold.files import write_json
        from weightfold.train import session

        torch.set_num_threads(self.threads)
        net, dataset = self._deployed()
        self.folder.mkdir(parents=True, exist_ok=True)
        rows: list[Row] = self._plain_files(net, dataset) if self.formats else []
        if self.int8 or self.int8_aware:
            rows += self._int8_files(net, dataset)
        record = {"source": self.source.name, "threads": self.threads, "files": rows}
        write_json(self.folder / "export.json", record | {"session": session()})
        _print(rows, self.threads)

    def _deployed(self) -> "tuple[nn.Module, Dataset]":
        from weightfold.data import load
        from weightfold.lab.saved import (
            configuration,
            deployed,
            is_saved_net,
            load_run,
            load_saved,
        )

        if is_saved_net(self.source):
            if self.model is None or self.data is None:
                raise ValueError(
                    f"source={str(self.source)!r} holds a net of wf.save, which does not say what "
                    "network it is; give --model and --data"
                )
            dataset = load(self.data, self.data_root)
            return deployed(load_saved(self.source, self.model, dataset)), dataset
        dataset = load(self.data or configuration(self.source)["about"]["data"], self.data_root)
        return deployed(load_run(self.source, dataset, self.weights, model=self.model)), dataset

    def _plain_files(self, net: "nn.Module", dataset: "Dataset") -> list[Row]:
        """Rows of the float32 files and of the network in torch."""
        from functools import partial

        import torch

        from weightfold import export
        from weightfold.timing import latency

        example = torch.zeros(1, *dataset.image_shape)
        runners, reports = {"torch": export.torch_runner(net)}, {}
        if "onnx" in self.formats:
            path = self.folder / "model.onnx"
            reports[path.name] = export.to_onnx(net, example, path)
            runners[path.name] = export.onnx_runner(path)
        if "torch" in self.formats:
            path = self.folder / "model.pt2"
            reports[path.name] = export.to_exported_program(net, example, path)
            runners[path.name] = export.program_runner(path)
        rows = []
        for name, run in runners.items():
            row = _row(name, export.accuracy(run, _test(dataset)), latency(partial(run, example)))
            if name in reports:
                row["bytes"] = reports[name].bytes
                row["from_torch"] = max(reports[name].max_relative_difference.values())
            rows.append(row)
        return rows

    def _int8_files(self, net: "nn.Module", dataset: "Dataset") -> list[Row]:
        """Rows of the INT8 files and of the float32 file that they were timed with."""
        from weightfold.export import int8_report

        report = int8_report(
            net,
            next(_training(dataset, batch_size=CALIBRATION_IMAGES))[0],
            _test(dataset),
            self.folder,
            training_batches=_training(dataset, batch_size=64) if self.int8_aware else None,
            steps=self.int8_steps,
            lr=self.int8_lr,
        )
        variants = [v for v in (report.float32, report.static, report.aware) if v is not None]
        return [
            _row(Path(v.path).name, v.accuracy, v.latency) | {"bytes": v.bytes} for v in variants
        ]


def _row(name: str, accuracy: float, latency: "Latency") -> Row:
    return {
        "file": name,
        "test_accuracy": accuracy,
        "median_ms": latency.median_ms,
        "p10_ms": latency.p10_ms,
        "p90_ms": latency.p90_ms,
    }


def _test(dataset: "Dataset") -> "Iterator[tuple[Tensor, Tensor]]":
    from weightfold.tasks.registry import as_task

    return as_task(dataset).batches("test").epoch(0)


def _training(dataset: "Dataset", batch_size: int) -> "Iterator[tuple[Tensor, Tensor]]":
    """Training batches, not augmented, epoch after epoch."""
    from itertools import count

    from weightfold.data import Batches

    batches = Batches(
        dataset.train,
        batch_size=min(batch_size, len(dataset.train)),
        mean=dataset.mean,
        std=dataset.std,
        augment=None,
        seed=0,
    )
    for epoch in count():
        yield from batches.epoch(epoch)


def _print(rows: list[Row], threads: int) -> None:
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
