"""Train networks in other coordinates than you deploy.

A chart T maps coordinates psi, which the optimizer moves, to the weights theta = T(psi) of an
ordinary network, which is what gets shipped. Nothing heavy is imported before a name is used;
`__init__.pyi` beside this file is for type checkers.
"""

from importlib import import_module
from typing import Any

from weightfold.version import __version__ as __version__

_NAMES = {
    "core.chart": "Chart",
    "core.charted": "Charted",
    "core.preprocessing": "Preprocessing",
    "core.store": "save",
    "methods": "list_methods load",
    "methods.doconv.verb": "doconv",
    "methods.embed.distance": "deviation fair_learning_rate metric",
    "methods.embed.verb": "embed embedding_size",
    "methods.expand.chain": "Chain",
    "methods.expand.options": "ExpandOptions",
    "methods.expand.twin": "linear_from_twin nonlinear_twin",
    "methods.expand.verb": "expand",
    "methods.mask.verb": "mask",
    "methods.share.net": "SharedNet",
    "methods.share.plan": "Plan SharingOptions plan_sharing",
    "methods.share.verb": "share",
    "methods.subspace.verb": "subspace",
    "data.registry": "list_data",
    "nets.registry": "list_nets",
    "tasks.registry": "list_tasks",
    "train.domains.fit": "fit_domains",
    "train.options": "Options",
    "train.recipe": "Recipe",
    "train.single": "fit",
    "train.starts": "Start",
    "train.together": "fit_together",
    "probes.confusion.probe": "confusion",
    "probes.hessian.verb": "hessian",
    "probes.intrinsic": "intrinsic_dimension",
    "probes.landscape.probe": "landscape",
    "probes.layers.reset": "layer_reset",
    "probes.layers.splice": "splice",
    "probes.memory": "critical_sample_ratio example_ledger memorization memorizer",
    "probes.path.align": "align",
    "probes.path.probe": "path",
    "probes.registry": "list_probes",
    "probes.relax.probe": "relax",
    "probes.smoothness.probe": "smoothness",
    "probes.tickets.probe": "lottery_ticket",
    "probes.tickets.shrink": "shrink",
    "export.onnx_file": "to_onnx",
    "lab.compare": "compare",
    "lab.inspect": "inspect",
    "papers": "list_experiments",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
_FOLDERS = ("data", "export", "methods", "nets", "tasks", "train")

__all__ = ["__version__", *_HOMES, *_FOLDERS]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f"weightfold.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'weightfold' has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(f"weightfold.{_HOMES[name]}"), name))


def __dir__() -> list[str]:
    return sorted(__all__)
