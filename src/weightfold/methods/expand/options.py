"""Options of `wf.expand` that few calls need."""

from dataclasses import dataclass
from typing import Literal, TypedDict

from torch import Tensor

from weightfold.core.arguments import whole
from weightfold.hints import check_fields

DEEPEST = 64


@dataclass(frozen=True)
class ExpandOptions:
    """How the chains of an expansion are made, and how they run.

    Attributes:
        linear_depth: Layers per expanded Linear, 2 to 64.
        first: "rm", or "m" to leave the image channels of the first convolution unexpanded, as
            the authors' code does for Tables 1, 8 and 9.
        execution: "fold" computes the folded weights on the fly, "chain" runs the factors,
            "auto" takes the cheaper by multiply-adds (fold where `example_input` is None).
        example_input: A batch as in training; its size enters the cost model.

    Raises:
        TypeError: `linear_depth` or `example_input` is of another type.
        ValueError: An option is none of its choices.
    """

    linear_depth: int = 3
    first: Literal["rm", "m"] = "rm"
    execution: Literal["auto", "fold", "chain"] = "auto"
    example_input: Tensor | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if whole(self.linear_depth, "linear_depth", least=2) > DEEPEST:
            raise ValueError(f"linear_depth={self.linear_depth}; give at most {DEEPEST}")


class ExpandKeywords(TypedDict, total=False):
    """`ExpandOptions` as keyword arguments of `wf.expand`."""

    options: ExpandOptions
    linear_depth: int
    first: Literal["rm", "m"]
    execution: Literal["auto", "fold", "chain"]
    example_input: Tensor | None
