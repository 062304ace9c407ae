"""Ship a SharedNet as one graph a domain; `weightfold.export` makes one graph for all.

Names are imported on first use, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightfold.export.domains.executorch_file import to_executorch as to_executorch
    from weightfold.export.domains.per_domain import PerDomainReport as PerDomainReport
    from weightfold.export.domains.per_domain import to_onnx_per_domain as to_onnx_per_domain
    from weightfold.export.routed import RoutedNet as RoutedNet

_HOMES = {
    "PerDomainReport": "domains.per_domain",
    "RoutedNet": "routed",
    "to_executorch": "domains.executorch_file",
    "to_onnx_per_domain": "domains.per_domain",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"weightfold.export.{_HOMES[name]}"), name)
