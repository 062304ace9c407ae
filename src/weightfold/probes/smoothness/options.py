"""Options of `wf.smoothness`."""

from dataclasses import dataclass
from typing import TypedDict

from weightfold.core.arguments import whole


@dataclass(frozen=True, kw_only=True)
class SmoothnessOptions:
    """When and how finely to look.

    Attributes:
        every: Optimizer steps from one look to the next.
        points: Along each gradient, up to 0.4 of it.
        shifts: Whether internal covariate shift is measured: a gradient a layer.
        layers: How many layers' outputs are drawn, evenly spread over the depth.

    Raises:
        ValueError: One is out of range.
    """

    every: int = 20
    points: int = 8
    shifts: bool = True
    layers: int = 2

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("points", 1), ("layers", 0)):
            whole(getattr(self, name), name, least=least)


class SmoothnessKeywords(TypedDict, total=False):
    """`SmoothnessOptions` as keyword arguments of `wf.smoothness`."""

    options: SmoothnessOptions
    every: int
    points: int
    shifts: bool
    layers: int
