"""INT8 after training: ONNX Runtime's static quantization of an .onnx file."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from weightfold.export.extras import need, quiet
from weightfold.export.files import checked, staged
from weightfold.export.onnx_file import file_bytes, operators
from weightfold.export.processor import Cpu, check_cpu, this_cpu
from weightfold.export.runners import onnx_runner

CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class StaticReport:
    """What was written; `dataclasses.asdict` of it is JSON.

    Attributes:
        path: The INT8 file.
        bytes: Its size.
        float32_bytes: Size of the file it was made from.
        operators: How many nodes of each kind.
        int8_weights: Numbers stored in 8 bits in tensors of two or more dimensions.
        float_weights: Numbers left in floating point there.
    """

    path: str
    bytes: int
    float32_bytes: int
    operators: dict[str, int]
    int8_weights: int
    float_weights: int


def quantize_static(
    onnx_path: str | Path, calibration: Tensor, path: str | Path, *, cpu: Cpu | None = None
) -> StaticReport:
    """Write an .onnx file whose weights are int8 and whose layers compute in 8 bits.

    Weights are quantized per output channel, activations per tensor over the range that
    `calibration` shows, with QuantizeLinear and DequantizeLinear nodes (QDQ).

    Args:
        onnx_path: A float32 file with one input, as `to_onnx` writes.
        calibration: Images as the network gets them, float32 (N, ...); some hundreds of training
            images.
        path: The file to write; its folder exists.
        cpu: The kind of processor the file will run on, see `weightfold.export.processor`; None:
            this one's.

    Raises:
        ImportError: The extra is not installed (`weightfold[export]`).
        FileNotFoundError: `onnx_path` or the folder of `path` is missing.
        ValueError: `calibration` is empty, not finite, or not images that the file takes; or
            `cpu` is none of the three.
    """
    need("export", "onnx", "onnxruntime")
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    signed, unsigned = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
    targets = {
        "x86": (unsigned, False),
        "x86-without-vnni": (unsigned, True),
        "arm": (signed, False),
    }
    cpu = cpu or this_cpu()
    check_cpu(cpu)
    activation_type, reduce_range = targets[cpu]
    checked(path)
    name = _check_calibration(onnx_path, calibration)
    with staged(path) as temporary, TemporaryDirectory() as folder, quiet():
        prepared = Path(folder) / "prepared.onnx"
        # Fuses what training left apart, so that a fused layer is quantized once.
        quant_pre_process(str(onnx_path), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            temporary,
            _reader(name, calibration),
            per_channel=True,
            activation_type=activation_type,
            weight_type=signed,
            reduce_range=reduce_range,
        )
        _keep_metadata(onnx_path, temporary)
    model = onnx.load(path)
    int8, floating = weight_counts(model)
    return StaticReport(
        path=str(path),
        bytes=file_bytes(path),
        float32_bytes=file_bytes(onnx_path),
        operators=operators(model),
        int8_weights=int8,
        float_weights=floating,
    )


def _keep_metadata(source: str | Path, path: Path) -> None:
    """Let a quantized file say what the one it was made of says, above all how it is fed."""
    import onnx

    told = onnx.load(source, load_external_data=False).metadata_props
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in told})
    path.write_bytes(model.SerializeToString())


def _check_calibration(onnx_path: str | Path, calibration: Tensor) -> str:
    """The name of the file's input, after a run on two of the images."""
    import onnx

    run = onnx_runner(onnx_path)
    shape = tuple(calibration.shape)
    if 0 in shape:
        raise ValueError(f"calibration has shape {shape}; give at least one image")
    if not calibration.isfinite().all():
        raise ValueError("calibration holds values that are not finite")
    try:
        run(calibration[:2])
    except Exception as error:
        raise ValueError(
            f"calibration has shape {shape} and dtype {calibration.dtype}, which {onnx_path} does "
            f"not take: {error}"
        ) from error
    return onnx.load(onnx_path, load_external_data=False).graph.input[0].name


def _reader(name: str, calibration: Tensor) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            batches = calibration.split(CALIBRATION_BATCH)
            self.feeds: Iterator = iter([{name: batch.numpy(force=True)} for batch in batches])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    return Reader()


def weight_counts(model: Any) -> tuple[int, int]:
    """How many numbers of an onnx.ModelProto's weights are 8-bit integers, and how many floats.

    Weights are the initializers of two or more dimensions; biases and scales have one.
    """
    from onnx import TensorProto

    counts = {TensorProto.INT8: 0, TensorProto.UINT8: 0, TensorProto.FLOAT: 0}
    for tensor in model.graph.initializer:
        if len(tensor.dims) >= 2 and tensor.data_type in counts:
            counts[tensor.data_type] += prod(tensor.dims)
    return counts[TensorProto.INT8] + counts[TensorProto.UINT8], counts[TensorProto.FLOAT]
