"""Tables and figures of papers, as experiments: every module here has `EXPERIMENTS`, a tuple.

`_name.py` is shared by some; `name.toml` has the numbers that a paper prints.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from weightfold.lab.experiment import Experiment
from weightfold.spec import matching


@cache
def experiments() -> Mapping[str, Experiment]:
    """All experiments by name: every `EXPERIMENTS` of the modules here.

    Raises:
        ValueError: Two have one name.
    """
    found: dict[str, Experiment] = {}
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    for module in (name for name in names if not name.startswith("_")):
        for experiment in importlib.import_module(f"{__name__}.{module}").EXPERIMENTS:
            if experiment.name in found:
                raise ValueError(f"two experiments are called {experiment.name!r}")
            found[experiment.name] = experiment
    return found


def list_experiments(filter: str = "*") -> list[str]:
    """Names of the experiments, as `weightfold experiment run` takes them.

    >>> import weightfold as wf
    >>> wf.list_experiments("guo2020-table[123]")
    ['guo2020-table1', 'guo2020-table2', 'guo2020-table3']

    Args:
        filter: A glob that the names match.
    """
    return matching(sorted(experiments()), filter)


def experiment(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        ValueError: There is none; the message lists them.
    """
    if name not in experiments():
        raise ValueError(f"no experiment {name!r}; experiments: {', '.join(experiments())}")
    return experiments()[name]
