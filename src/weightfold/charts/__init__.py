"""The charts: every file here that defines a `Chart` is found by itself.

`catalogue()` lists them; the contract tests, `wf.load` and the command line read it.
"""

import importlib
import pkgutil

from weightfold.core.chart import Chart


def catalogue() -> dict[str, type[Chart]]:
    """Kind -> chart class, for every file of this folder."""
    found: dict[str, type[Chart]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Chart) and value is not Chart:
                found[value.kind] = value
    return found
