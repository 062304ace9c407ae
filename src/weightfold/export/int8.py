"""What INT8 costs in accuracy, and gains in size and time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from torch import Tensor, nn

from weightfold.export.int8_aware import quantize_aware
from weightfold.export.int8_static import quantize_static
from weightfold.export.onnx_file import file_bytes, to_onnx
from weightfold.export.processor import Cpu, check_cpu, saturating, this_cpu
from weightfold.export.runners import accuracies, onnx_runner
from weightfold.export.subject import ExportError, frozen, traceable
from weightfold.timing import Latency, alternate


@dataclass(frozen=True)
class Aware:
    """How a network is quantized in training.

    Attributes:
        batches: For `quantize_aware`.
        steps: For `quantize_aware`.
        lr: For `quantize_aware`.
        tolerance: Relative difference allowed between the network in torch and in ONNX Runtime.
    """

    batches: Iterable[tuple[Tensor, Tensor]]
    steps: int = 200
    lr: float = 1e-4
    tolerance: float = 0.1


@dataclass(frozen=True)
class Variant:
    """A network as one file, run in ONNX Runtime.

    Attributes:
        path: The file.
        bytes: Its size.
        accuracy: Top-1 share.
        latency: Of one image; the variants of a report were timed in turn.
    """

    path: str
    bytes: int
    accuracy: float
    latency: Latency


@dataclass(frozen=True)
class Int8Report:
    """A network in float32 and INT8; `dataclasses.asdict` of it is JSON.

    Attributes:
        float32: The network as it was.
        static: Quantized after training.
        aware: Quantized in training, if asked for and done.
        failed: Why it was not done; the other two are there all the same.
        cpu: The kind of processor the INT8 files are for.
        warning: Why they may compute something else on this one; empty if they do not.
    """

    float32: Variant
    static: Variant
    aware: Variant | None
    failed: str = ""
    cpu: Cpu = "x86"
    warning: str = ""

    def latency_ratio(self, variant: Variant) -> float:
        """Median latency of a variant over float32's."""
        return variant.latency.median_ms / self.float32.latency.median_ms


def int8_report(
    module: nn.Module,
    calibration: Tensor,
    test_batches: Iterable[tuple[Tensor, Tensor]],
    folder: str | Path,
    *,
    aware: Aware | None = None,
    cpu: Cpu | None = None,
    repeats: int = 50,
) -> Int8Report:
    """Quantize a network after and, if it gets batches, in training; measure all of them.

    Writes float32.onnx, int8-static.onnx and int8-aware.onnx.

    Args:
        module: A trained network, one tensor to one; left unchanged.
        calibration: For `quantize_static`: float32 (N, ...).
        test_batches: Pairs of images and labels int64 (B,), normalised; gone through once.
        folder: Exists.
        aware: How to quantize in training; None: no such variant.
        cpu: The kind of processor the files are for, see `weightfold.export.processor`; None: this
            one's.
        repeats: Timed calls of each variant, with one image each.

    Raises:
        ImportError: An extra is not installed (`weightfold[export]`, `weightfold[int8]`).
        FileNotFoundError: `folder` is missing.
        TypeError: As in `to_onnx`.
        ValueError: A calibration or batches that are empty or do not fit the network.
        ExportError: As in `to_onnx`, of the float32 file.
    """
    folder, cpu = Path(folder), cpu or this_cpu()
    check_cpu(cpu)
    paths = {"float32": folder / "float32.onnx", "static": folder / "int8-static.onnx"}
    traceable(frozen(module), calibration, argument="calibration")
    test_batches = iter(test_batches)
    first = next(test_batches, None)
    if first is None:
        raise ValueError("test_batches is empty; give pairs of images and labels")
    to_onnx(module, calibration, paths["float32"])
    quantize_static(paths["float32"], calibration, paths["static"], cpu=cpu)
    failed = ""
    if aware is not None:
        path = folder / "int8-aware.onnx"
        try:
            _write_aware(module, calibration, path, aware, cpu)
            paths["aware"] = path
        except (ExportError, FloatingPointError) as error:
            failed = f"{error}; {saturating(cpu)}".removesuffix("; ")
    variants = _measured(paths, calibration[:1], chain([first], test_batches), repeats)
    return Int8Report(
        variants["float32"],
        variants["static"],
        variants.get("aware"),
        failed,
        cpu,
        saturating(cpu),
    )


def _write_aware(
    module: nn.Module, example_input: Tensor, path: Path, aware: Aware, cpu: Cpu
) -> None:
    net = quantize_aware(module, aware.batches, steps=aware.steps, lr=aware.lr, cpu=cpu)
    to_onnx(net, example_input, path, tolerance=aware.tolerance)


def _measured(
    paths: Mapping[str, Path],
    image: Tensor,
    test_batches: Iterable[tuple[Tensor, Tensor]],
    repeats: int,
) -> dict[str, Variant]:
    runs = {name: onnx_runner(path) for name, path in paths.items()}
    accuracy = accuracies(runs, test_batches)
    latency = alternate({name: partial(run, image) for name, run in runs.items()}, repeats=repeats)
    return {
        name: Variant(str(path), file_bytes(path), accuracy[name], latency[name])
        for name, path in paths.items()
    }
