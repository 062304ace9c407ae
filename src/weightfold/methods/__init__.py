"""The methods, a folder each: its chart, its verb, its mathematics.

Every folder here whose `chart` module defines a `Chart` is found by itself: `catalogue()` lists
them; the contract tests, `wf.load` and the command line read it.
"""

import importlib
import pkgutil

from weightfold.core.chart import Chart


def catalogue() -> dict[str, type[Chart]]:
    """Kind -> chart class, for the `chart` module of every folder."""
    found: dict[str, type[Chart]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}.chart")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Chart) and value is not Chart:
                found[value.kind] = value
    return found
