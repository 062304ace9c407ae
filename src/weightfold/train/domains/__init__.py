"""Training and evaluation of one net on several domains.

Names that need torch are imported on first use, so that the command line can read `Joint`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weightfold.train.domains.joint import Joint as Joint
from weightfold.train.domains.options import DomainOptions as DomainOptions

if TYPE_CHECKING:
    from weightfold.train.domains.evaluate import (
        DECATHLON_BASELINE_ERRORS as DECATHLON_BASELINE_ERRORS,
    )
    from weightfold.train.domains.evaluate import decathlon_points as decathlon_points
    from weightfold.train.domains.evaluate import decathlon_score as decathlon_score
    from weightfold.train.domains.evaluate import evaluate_domains as evaluate_domains
    from weightfold.train.domains.fit import fit_domains as fit_domains
    from weightfold.train.domains.text import parse_domains as parse_domains

_HOMES = {
    "DECATHLON_BASELINE_ERRORS": "evaluate",
    "decathlon_points": "evaluate",
    "decathlon_score": "evaluate",
    "evaluate_domains": "evaluate",
    "fit_domains": "fit",
    "parse_domains": "text",
}

__all__ = ["DomainOptions", "Joint", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
