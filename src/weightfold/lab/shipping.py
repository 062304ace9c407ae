"""The deployed network of a run in files: each compared with torch and timed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold import export
from weightfold.core.preprocessing import Preprocessing
from weightfold.data import Batches, Dataset, load
from weightfold.export.processor import Cpu
from weightfold.export.subject import one_output
from weightfold.files import write_json
from weightfold.lab.saved import (
    configuration,
    deployed,
    is_saved_net,
    load_run,
    load_saved,
    preprocessing_of,
    task_of,
)
from weightfold.tasks.measure import ACCURACY, Measure
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.timing import Latency, latency
from weightfold.train import evaluate, session

CALIBRATION_IMAGES = 512

Format = Literal["onnx", "torch", "safetensors"]

Row = dict[str, Any]
"""A file: its name, bytes, relative difference from torch, the task's measure on the test set, as a
number and in words ("test"), and latencies; of one that could not be written, why: "failed"."""


@dataclass(frozen=True)
class Quantizing:
    """What is quantized to INT8.

    Attributes:
        static: After training: int8-static.onnx, compared with float32.onnx.
        aware: Also fine-tune in INT8: int8-aware.onnx.
        steps: Training steps of that.
        lr: Learning rate of that.
        tolerance: Largest relative difference of that from torch.
        cpu: The kind of processor the files are for; None: this one's.
    """

    static: bool = False
    aware: bool = False
    steps: int = 200
    lr: float = 1e-4
    tolerance: float = 0.1
    cpu: Cpu | None = None


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
        mean: How the network is fed, where the folder does not say: as in
            `weightfold.Preprocessing`, like the two that follow.
        std: See there.
        value_range: See there.
    """

    folder: Path | str
    weights: Literal["last", "best"] = "last"
    model: str | None = None
    data: str | None = None
    data_root: Path | str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)

    @property
    def path(self) -> Path:
        """Of the folder."""
        return Path(self.folder)

    def open(self) -> tuple[nn.Module, Task]:
        """The deployed network, in eval mode, and its task, on the data as the network is fed.

        Raises:
            FileNotFoundError: There is no folder, or no run in it.
            ValueError: Something is not said, or said twice.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"source={str(self.folder)!r} is no folder; give that of a run or of wf.save"
            )
        if is_saved_net(self.path):
            if self.model is None or self.data is None:
                raise ValueError(
                    f"source={str(self.folder)!r} holds a net of wf.save, which does not say what "
                    "network it is; give model and data"
                )
            dataset = self._fed(load(self.data, self.data_root))
            task = as_task(dataset)
            net = load_saved(self.path, self.model, task)
        else:
            spec = self.data or configuration(self.path)["about"]["data"]
            dataset = self._fed(load(spec, self.data_root))
            task = task_of(self.path, dataset)
            net = load_run(self.path, task, self.weights, model=self.model)
        if Preprocessing.of(net) is None and (told := dataset.preprocessing) is not None:
            told.attach(net)
        plain, example = deployed(net), torch.zeros(1, *dataset.shape)
        output = getattr(task, "output", None)
        if output is not None:  # the one that was meant is the only one afterwards
            task = replace(task, output=None)  # type: ignore[call-arg]
        return one_output(plain, example, output), task

    def _fed(self, dataset: Dataset) -> Dataset:
        """The data as the network is fed: by the folder, by what is given, or as trained on."""
        told, given = preprocessing_of(self.path), self.mean or self.std
        if told is not None:
            if given:
                raise ValueError(
                    f"mean and std are given, but {self.folder} says how its network is fed: "
                    f"mean {told.mean}, std {told.std} of {told.value_range}; leave them out"
                )
            return dataset.fed_as(told, f"the network of {self.folder}")
        if given or self.value_range != (0.0, 1.0):
            told = Preprocessing(dataset.image_shape, self.mean, self.std, self.value_range)
            return dataset.fed_as(told, "the network")
        if is_saved_net(self.path) or self.data is not None:
            raise ValueError(
                f"{self.folder} does not say how its network is fed, so that the data might be "
                "normalised otherwise than it was trained with; save it with wf.save(net, folder, "
                "preprocessing=wf.Preprocessing(...)), or give what it was trained with: --mean "
                f"and --std, for which the data set has {_numbers(dataset.mean)} and "
                f"{_numbers(dataset.std)}"
            )
        return dataset  # the run's own


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values) or "none"


def export_run(
    source: Source,
    folder: Path | str,
    *,
    formats: Sequence[Format] = ("onnx", "torch"),
    int8: Quantizing = NO_INT8,
    tolerance: float = 1e-5,
    threads: int = 1,
) -> list[Row]:
    """Write the deployed network of a run to files, check them against torch, and time them.

    A file that could not be written does not keep the others from being there.

    Args:
        source: The run, or a saved net.
        folder: Made if missing; gets the files and export.json, which says how the network is fed,
            too.
        formats: "onnx": model.onnx; "torch": model.pt2; "safetensors": model.safetensors, weights
            under the names of the plain network.
        int8: What is quantized.
        tolerance: Largest relative difference from torch of the float32 files.
        threads: Of torch when files are timed, one image at a time.

    Returns:
        A row a file, and one of the network in torch.

    Raises:
        ExportError: The float32 file that INT8 begins with computes something else than torch.
        ValueError: As `Source.open`.
    """
    torch.set_num_threads(threads)
    folder = Path(folder)
    net, task = source.open()
    quantizing = int8.static or int8.aware
    if quantizing and task.name != "classify":
        raise ValueError(f"int8 of a network of task {task.name!r}: it is tuned by class labels")
    folder.mkdir(parents=True, exist_ok=True)
    rows = _plain_files(net, task, folder, formats, tolerance) if formats else []
    if quantizing:
        rows += _int8_files(net, task.dataset, folder, int8)
    told = Preprocessing.of(net)
    record = {
        "source": source.path.name,
        "threads": threads,
        "preprocessing": None if told is None else told.record(),
        "files": rows,
    }
    write_json(folder / "export.json", record | {"session": session()})
    return rows


_FILES: dict[Format, tuple[str, Callable[..., Any], Callable[[Path], export.Runner] | None]] = {
    "onnx": ("model.onnx", export.to_onnx, export.onnx_runner),
    "torch": ("model.pt2", export.to_exported_program, export.program_runner),
    "safetensors": ("model.safetensors", export.to_safetensors, None),
}
"""Format -> its file, what writes it, and what runs it, if anything but torch does."""


def _plain_files(
    net: nn.Module, task: Task, folder: Path, formats: Sequence[Format], tolerance: float
) -> list[Row]:
    """Rows of the float32 files and of the network in torch."""
    example = torch.zeros(1, *task.dataset.shape)
    rows = [_measured("torch", net, export.torch_runner(net), task, example)]
    for name, write, runner in (_FILES[format] for format in formats):
        path = folder / name
        try:
            report = write(net, example, path, tolerance=tolerance)
        except export.ExportError as error:
            rows.append({"file": name, "failed": str(error)})
            continue
        row = {"file": name}
        if runner is not None:
            row = _measured(name, net, runner(path), task, example)
        row["bytes"] = report.bytes
        row["from_torch"] = max(report.max_relative_difference.values())
        rows.append(row)
    return rows


def _int8_files(net: nn.Module, dataset: Dataset, folder: Path, int8: Quantizing) -> list[Row]:
    """Rows of the INT8 files and of the float32 file that they were timed with."""
    aware = export.Aware(_training(dataset, batch_size=64), int8.steps, int8.lr, int8.tolerance)
    report = export.int8_report(
        net,
        next(_training(dataset, batch_size=CALIBRATION_IMAGES))[0],
        _test(dataset),
        folder,
        aware=aware if int8.aware else None,
        cpu=int8.cpu,
    )
    variants = [v for v in (report.float32, report.static, report.aware) if v is not None]
    rows = [
        _row(Path(v.path).name, ACCURACY, v.accuracy, v.latency) | {"bytes": v.bytes}
        for v in variants
    ]
    for row in rows[1:]:
        row |= {"cpu": report.cpu} | ({"warning": report.warning} if report.warning else {})
    return rows + [{"file": "int8-aware.onnx", "failed": report.failed}] * bool(report.failed)


def _measured(name: str, net: nn.Module, run: export.Runner, task: Task, example: Tensor) -> Row:
    value = evaluate(net, task, forward=run)[task.measure.name]
    return _row(name, task.measure, value, latency(partial(run, example)))


def _row(name: str, measure: Measure, value: float, timed: Latency) -> Row:
    return {
        "file": name,
        f"test_{measure.name}": value,
        "test": measure.text(value).removeprefix(f"{measure.name} "),
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
