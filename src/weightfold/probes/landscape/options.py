"""Options of `wf.landscape`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from weightfold.core.arguments import check_choices, real, whole
from weightfold.probes.objective import BatchNorm, Coordinates

Along = Literal["random", "gradient", "to"]


@dataclass(frozen=True, kw_only=True)
class LandscapeOptions:
    """What slice is cut, and of what.

    Attributes:
        along: A direction for each axis, one or two: "random" (filter-normalised), "gradient"
            (down the gradient, filter-normalised), or "to" another network.
        to: The networks of the axes "to", in their order: modules, state_dicts or paths of
            safetensors files, see `wf.splice`; there the coordinate is 1.
        points: On each axis.
        span: Axes go from -span to span; those "to" a network from -span / 2 to 1 + span / 2.
        coordinates: "theta", the deployed weights, in which expanded and compact networks compare,
            or "psi", the trained coordinates of a Charted net.
        bn: Batch norm: "keep", its running statistics as they are; "recalibrate", estimated anew
            at each point on at most 1,000 training examples; "batch", those of each batch. To be
            given for a network that has any: it decides what the slice looks like.
        part: Of the data.
        examples: Of it; None: all.
        biases: Whether biases and normalisations move too, each tensor normalised as a whole.
        train: Whether each seed's network is trained first, by the recipe.

    Raises:
        ValueError: One is out of range.
    """

    along: Sequence[str] = ("random", "random")
    to: Sequence[Any] = ()
    points: int = 21
    span: float = 1.0
    coordinates: Coordinates = "theta"
    bn: BatchNorm | None = None
    part: str = "train"
    examples: int | None = 1000
    biases: bool = False
    train: bool = False

    def __post_init__(self) -> None:
        for one in self.along:
            check_choices({"along": one}, {"along": get_args(Along)})
        if len(self.along) not in (1, 2):
            raise ValueError(f"along has {len(self.along)} directions; give one or two")
        if len(self.to) != list(self.along).count("to"):
            raise ValueError(
                f"to has {len(self.to)} networks, along says 'to' {list(self.along).count('to')} "
                "times; give as many"
            )
        whole(self.points, "points", least=3)
        if not real(self.span, "span") > 0:
            raise ValueError(f"span={self.span}; give a number above 0")


class LandscapeKeywords(TypedDict, total=False):
    """`LandscapeOptions` as keyword arguments of `wf.landscape`."""

    options: LandscapeOptions
    along: Sequence[str]
    to: Sequence[Any]
    points: int
    span: float
    coordinates: Literal["theta", "psi"]
    bn: Literal["keep", "recalibrate", "batch"] | None
    part: str
    examples: int | None
    biases: bool
    train: bool
