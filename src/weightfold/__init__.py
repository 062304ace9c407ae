"""Train convolutional networks in other coordinates than you deploy.

A chart T maps coordinates psi, which the optimizer moves, to the weights theta = T(psi) of an
ordinary network, which is what gets shipped. Nothing heavy is imported before a name is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from weightfold.version import __version__ as __version__

if TYPE_CHECKING:
    from weightfold.core.chart import Chart as Chart
    from weightfold.core.charted import Charted as Charted
    from weightfold.core.store import save as save
    from weightfold.lab.inspect import inspect as inspect
    from weightfold.methods import load as load
    from weightfold.methods.embed.verb import embed as embed
    from weightfold.methods.expand.chain import Chain as Chain
    from weightfold.methods.expand.options import ExpandOptions as ExpandOptions
    from weightfold.methods.expand.twin import linear_from_twin as linear_from_twin
    from weightfold.methods.expand.twin import nonlinear_twin as nonlinear_twin
    from weightfold.methods.expand.verb import expand as expand
    from weightfold.methods.mask.verb import mask as mask
    from weightfold.methods.share.net import SharedNet as SharedNet
    from weightfold.methods.share.plan import Plan as Plan
    from weightfold.methods.share.plan import SharingOptions as SharingOptions
    from weightfold.methods.share.plan import plan_sharing as plan_sharing
    from weightfold.methods.share.verb import share as share
    from weightfold.methods.subspace.verb import subspace as subspace
    from weightfold.probes.intrinsic import intrinsic_dimension as intrinsic_dimension
    from weightfold.probes.layers.reset import layer_reset as layer_reset
    from weightfold.probes.layers.splice import splice as splice
    from weightfold.probes.memory import critical_sample_ratio as critical_sample_ratio
    from weightfold.probes.memory import example_ledger as example_ledger
    from weightfold.probes.memory import memorization as memorization
    from weightfold.probes.memory import memorizer as memorizer
    from weightfold.probes.tickets.probe import lottery_ticket as lottery_ticket
    from weightfold.probes.tickets.shrink import shrink as shrink

_HOMES = {
    "Chain": "methods.expand.chain",
    "Chart": "core.chart",
    "Charted": "core.charted",
    "ExpandOptions": "methods.expand.options",
    "Plan": "methods.share.plan",
    "SharedNet": "methods.share.net",
    "SharingOptions": "methods.share.plan",
    "critical_sample_ratio": "probes.memory",
    "example_ledger": "probes.memory",
    "embed": "methods.embed.verb",
    "expand": "methods.expand.verb",
    "inspect": "lab.inspect",
    "intrinsic_dimension": "probes.intrinsic",
    "layer_reset": "probes.layers.reset",
    "linear_from_twin": "methods.expand.twin",
    "load": "methods",
    "lottery_ticket": "probes.tickets.probe",
    "mask": "methods.mask.verb",
    "memorization": "probes.memory",
    "memorizer": "probes.memory",
    "nonlinear_twin": "methods.expand.twin",
    "plan_sharing": "methods.share.plan",
    "save": "core.store",
    "share": "methods.share.verb",
    "shrink": "probes.tickets.shrink",
    "splice": "probes.layers.splice",
    "subspace": "methods.subspace.verb",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'weightfold' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"weightfold.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
