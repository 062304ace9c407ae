"""The deployed network of a run in files: each compared with torch and timed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold import export
from weightfold.data import Batches, Dataset, load
from weightfold.files import write_json
from weightfold.lab.saved import configuration, deployed, is_saved_net, load_run, load_saved
from weightfold.tasks.registry import as_task
from weightfold.timing import Latency, latency
from weightfold.train import session

CALIBRATION_IMAGES = 512

Row = dict[str, Any]
"""A file: its name, bytes, relative difference from torch, test accuracy and latencies."""


@dataclass(frozen=True)
class Quantizing:
    """What is quantized to INT8.

    Attributes:
        static: After training: int8-static.onnx, compared with float32.onnx.
        aware: Also fine-tune in INT8: int8-aware.onnx.
        steps: Training steps of that.
        lr: Learning rate of that.
    """

    static: bool = False
    aware: bool = False
    steps: int = 200
    lr: float = 1e-4


NO_INT8 = Quantizing()
"""Nothing is."""


@dataclass(frozen=True)
class Source:
    """What is deployed.

    Attributes:
        folder: Of a finished run, or one that `wf.save` wrote.
        weights: Of the run's last or best epoch.
        model: The network's spec, needed for a folder of `wf.save`, and for a run of a
            module:function of the user's, which no file may run by itself.
        data: Data spec to test and calibrate with; None: the run's own. Needed for a folder of
            `wf.save`.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
    """

    folder: Path
    weights: Literal["last", "best"] = "last"
    model: str | None = None
    data: str | None = None
    data_root: Path | None = None

    def open(self) -> tuple[nn.Module, Dataset]:
        """The deployed network, in eval mode, and the data.

        Raises:
            FileNotFoundError: There is no run.
            ValueError: Something is not said, or said twice.
        """
        if is_saved_net(self.folder):
            if self.model is None or self.data is None:
                raise ValueError(
                    f"source={str(self.folder)!r} holds a net of wf.save, which does not say what "
                    "network it is; give model and data"
                )
            dataset = load(self.data, self.data_root)
            return deployed(load_saved(self.folder, self.model, dataset)), dataset
        dataset = load(self.data or configuration(self.folder)["about"]["data"], self.data_root)
        return deployed(load_run(self.folder, dataset, self.weights, model=self.model)), dataset


def export_run(
    source: Source,
    folder: Path,
    *,
    formats: Sequence[Literal["onnx", "torch"]] = ("onnx", "torch"),
    int8: Quantizing = NO_INT8,
    threads: int = 1,
) -> list[Row]:
    """Write the deployed network of a run to files, check them against torch, and time them.

    Args:
        source: The run, or a saved net.
        folder: Made if missing; gets the files and export.json.
        formats: "onnx": model.onnx; "torch": model.pt2.
        int8: What is quantized.
        threads: Of torch when files are timed, one image at a time.

    Returns:
        A row a file, and one of the network in torch.

    Raises:
        ExportError: A file computes something else than torch.
        ValueError: As `Source.open`.
    """
    torch.set_num_threads(threads)
    net, dataset = source.open()
    folder.mkdir(parents=True, exist_ok=True)
    rows = _plain_files(net, dataset, folder, formats) if formats else []
    if int8.static or int8.aware:
        rows += _int8_files(net, dataset, folder, int8)
    record = {"source": source.folder.name, "threads": threads, "files": rows}
    write_json(folder / "export.json", record | {"session": session()})
    return rows


def _plain_files(
    net: nn.Module, dataset: Dataset, folder: Path, formats: Sequence[str]
) -> list[Row]:
    """Rows of the float32 files and of the network in torch."""
    example = torch.zeros(1, *dataset.image_shape)
    runners, reports = {"torch": export.torch_runner(net)}, {}
    if "onnx" in formats:
        path = folder / "model.onnx"
        reports[path.name] = export.to_onnx(net, example, path)
        runners[path.name] = export.onnx_runner(path)
    if "torch" in formats:
        path = folder / "model.pt2"
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


def _int8_files(net: nn.Module, dataset: Dataset, folder: Path, int8: Quantizing) -> list[Row]:
    """Rows of the INT8 files and of the float32 file that they were timed with."""
    report = export.int8_report(
        net,
        next(_training(dataset, batch_size=CALIBRATION_IMAGES))[0],
        _test(dataset),
        folder,
        training_batches=_training(dataset, batch_size=64) if int8.aware else None,
        steps=int8.steps,
        lr=int8.lr,
    )
    variants = [v for v in (report.float32, report.static, report.aware) if v is not None]
    return [_row(Path(v.path).name, v.accuracy, v.latency) | {"bytes": v.bytes} for v in variants]


def _row(name: str, accuracy: float, timed: Latency) -> Row:
    return {
        "file": name,
        "test_accuracy": accuracy,
        "median_ms": timed.median_ms,
        "p10_ms": timed.p10_ms,
        "p90_ms": timed.p90_ms,
    }


def _test(dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    return as_task(dataset).batches("test").epoch(0)


def _training(dataset: Dataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches, not augmented, epoch after epoch."""
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
