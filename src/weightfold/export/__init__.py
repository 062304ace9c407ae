"""Ship a deployed network: ONNX, torch.export, INT8, and how fast and accurate the files are.

Names are imported on first use, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightfold.export.int8 import Aware as Aware
    from weightfold.export.int8 import Int8Report as Int8Report
    from weightfold.export.int8 import Variant as Variant
    from weightfold.export.int8 import int8_report as int8_report
    from weightfold.export.int8_aware import QuantizedNet as QuantizedNet
    from weightfold.export.int8_aware import quantize_aware as quantize_aware
    from weightfold.export.int8_static import StaticReport as StaticReport
    from weightfold.export.int8_static import quantize_static as quantize_static
    from weightfold.export.onnx_file import to_onnx as to_onnx
    from weightfold.export.program import to_exported_program as to_exported_program
    from weightfold.export.report import ExportReport as ExportReport
    from weightfold.export.runners import Runner as Runner
    from weightfold.export.runners import accuracy as accuracy
    from weightfold.export.runners import file_preprocessing as file_preprocessing
    from weightfold.export.runners import onnx_runner as onnx_runner
    from weightfold.export.runners import program_runner as program_runner
    from weightfold.export.runners import torch_runner as torch_runner
    from weightfold.export.subject import ExportError as ExportError
    from weightfold.export.weights_file import to_safetensors as to_safetensors

_HOMES = {
    "Aware": "int8",
    "ExportError": "subject",
    "ExportReport": "report",
    "Int8Report": "int8",
    "QuantizedNet": "int8_aware",
    "Runner": "runners",
    "StaticReport": "int8_static",
    "Variant": "int8",
    "accuracy": "runners",
    "file_preprocessing": "runners",
    "int8_report": "int8",
    "onnx_runner": "runners",
    "program_runner": "runners",
    "quantize_aware": "int8_aware",
    "quantize_static": "int8_static",
    "to_exported_program": "program",
    "to_onnx": "onnx_file",
    "to_safetensors": "weights_file",
    "torch_runner": "runners",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
