"""Ship a SharedNet: one graph that takes each image's domain, or one graph a domain.

Names are imported on first use, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightfold.export.domains.executorch_file import ExecutorchReport as ExecutorchReport
    from weightfold.export.domains.executorch_file import to_executorch as to_executorch
    from weightfold.export.domains.one_graph import OneGraphReport as OneGraphReport
    from weightfold.export.domains.one_graph import to_exported_program as to_exported_program
    from weightfold.export.domains.one_graph import to_onnx as to_onnx
    from weightfold.export.domains.per_domain import PerDomainReport as PerDomainReport
    from weightfold.export.domains.per_domain import to_onnx_per_domain as to_onnx_per_domain
    from weightfold.export.domains.routed import RoutedNet as RoutedNet

_HOMES = {
    "ExecutorchReport": "executorch_file",
    "OneGraphReport": "one_graph",
    "PerDomainReport": "per_domain",
    "RoutedNet": "routed",
    "to_executorch": "executorch_file",
    "to_exported_program": "one_graph",
    "to_onnx": "one_graph",
    "to_onnx_per_domain": "per_domain",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
