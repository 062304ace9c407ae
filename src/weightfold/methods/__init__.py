"""The methods, a folder each: its chart, its verb, its mathematics.

Every folder in `__path__` is found by itself: `catalogue` lists the charts; the contract tests,
`wf.load` and the command line read it.
"""

import importlib
import pkgutil
from pathlib import Path

from torch import nn

from weightfold.core.arguments import unwrapped
from weightfold.core.chart import Chart, registered_charts
from weightfold.core.store import load as load_registered
from weightfold.spec import matching


def catalogue() -> dict[str, type[Chart]]:
    """Kind -> chart class, of the `chart` module of every folder; verbs are imported with them."""
    found: set[str] = set()
    for folder in pkgutil.iter_modules(__path__):
        for module in pkgutil.iter_modules([str(Path(p) / folder.name) for p in __path__]):
            if module.name in ("chart", "verb"):
                name = f"{__name__}.{folder.name}.{module.name}"
                importlib.import_module(name)
                found.add(name)
    return {kind: chart for kind, chart in registered_charts().items() if chart.__module__ in found}


def list_methods(filter: str = "*") -> list[str]:
    """Names of the methods: the folders, whose verbs have the same names.

    >>> import weightfold as wf
    >>> wf.list_methods("s*")
    ['share', 'subspace']

    Args:
        filter: A glob that the names match.
    """
    return matching(
        sorted({chart.__module__.split(".")[-2] for chart in catalogue().values()}), filter
    )


def load(folder: str | Path, net: nn.Module) -> nn.Module:
    """Load what `wf.save` wrote, over a network of the same architecture.

    >>> import tempfile, torch, weightfold as wf
    >>> model, folder = torch.nn.Linear(3, 2), tempfile.mkdtemp()
    >>> net = wf.mask(model, {"weight": torch.ones(2, 3)})
    >>> wf.save(net, folder)
    >>> type(wf.load(folder, torch.nn.Linear(3, 2))).__name__
    'Charted'

    Args:
        folder: A folder written by `wf.save`.
        net: A plain module of the architecture that was charted; left unchanged.

    Returns:
        A Charted net as it was saved (or a copy of the plain module, if that was saved), in the
        dtypes it was saved in.

    Raises:
        FileNotFoundError: There is no manifest, or a file it names is missing or renamed.
        ValueError: A file is truncated, changed, of a later format, or belongs to another save; or
            a chart is of no method: import the module that defines it first.
        TypeError: `net` is no module.
        KeyError: The weights are of another architecture; the message lists the keys.
    """
    net = unwrapped(net)
    catalogue()
    return load_registered(folder, net)
