"""Options of `wf.path`."""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from weightfold.core.arguments import check_choices, real, whole
from weightfold.probes.objective import BatchNorm

Kind = Literal["linear", "norm-preserving", "bezier", "string"]


@dataclass(frozen=True, kw_only=True)
class PathOptions:
    """Where a path leads, and how.

    Attributes:
        to: The other end: a module, a state_dict, or the path of a safetensors file.
        kind: "linear"; "norm-preserving", the line with each tensor's norm interpolated; "bezier",
            a quadratic Bezier curve, and "string", points on a string: both found by descent.
        align: Permute the other end's neurons first, see `wf.align`.
        points: On the path, both ends included.
        bn: Batch norm at each point, as for `wf.landscape`; to be given for a network with any.
            "keep" has the running statistics of the first end everywhere.
        part: Of the data.
        examples: Of it; None: all.
        steps: Of the descent.
        lr: Its learning rate.
        pivots: Points of the string between the ends.

    Raises:
        ValueError: One is out of range.
    """

    to: Any
    kind: Kind = "linear"
    align: bool = False
    points: int = 21
    bn: BatchNorm | None = None
    part: str = "train"
    examples: int | None = 1000
    steps: int = 200
    lr: float = 0.01
    pivots: int = 5

    def __post_init__(self) -> None:
        check_choices({"kind": self.kind}, {"kind": get_args(Kind)})
        for name, least in (("points", 3), ("steps", 1), ("pivots", 1)):
            whole(getattr(self, name), name, least=least)
        if not real(self.lr, "lr") > 0:
            raise ValueError(f"lr={self.lr}; give a number above 0")


class PathKeywords(TypedDict, total=False):
    """`PathOptions` as keyword arguments of `wf.path`."""

    options: PathOptions
    to: Any
    kind: Literal["linear", "norm-preserving", "bezier", "string"]
    align: bool
    points: int
    bn: Literal["keep", "recalibrate", "batch"] | None
    part: str
    examples: int | None
    steps: int
    lr: float
    pivots: int
