"""What may be a domain: its name, its number of classes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral

from torch import nn


def check_names(names: Sequence[str]) -> None:
    """Refuse names of domains that do not do for files or modules, and duplicates.

    Raises:
        ValueError: As said.
    """
    given = Counter(names)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"{name!r} is no name of a domain; use letters, digits, - and _")
        if hasattr(nn.ModuleDict, name) or name == "training":
            raise ValueError(
                f"{name!r} is no name of a domain: modules of torch have it themselves"
            )
        if given[name] > 1:
            raise ValueError(f"domain {name!r} is named twice; give every domain a name of its own")


def check_classes(classes: Mapping[str, int]) -> dict[str, int]:
    """Numbers of classes as ints.

    Raises:
        ValueError: One is below 1, or no whole number.
    """
    for name, count in classes.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f"domain {name!r} has classes={count!r}; give at least 1")
    return {name: int(count) for name, count in classes.items()}
