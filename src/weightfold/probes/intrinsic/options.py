"""Options of `wf.intrinsic_dimension`."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypedDict

from weightfold.core.select import Where
from weightfold.hints import check_fields
from weightfold.methods.subspace.projections import Kind
from weightfold.train.together import Together

Metric = Literal["validation", "train"]


@dataclass(frozen=True)
class IntrinsicOptions:
    """What is measured, and how it is searched for.

    Attributes:
        threshold: Share of what the plain network reaches, in (0, 1], see
            `IntrinsicDimension.bar`; with `absolute` the value to reach.
        absolute: Whether the bar is `threshold` whatever the plain network reaches, as it was for
            the published dimensions of MNIST.
        metric: "validation": measured on the held-out set, `validation` if the data has one, else
            `test`. "train": on the training set, in eval mode, for data that cannot be
            generalised from, such as shuffled labels.
        kind: Of the projection P, see `wf.subspace`.
        where: Tensors that theta is made of; None: all trainable. All others stay as they are, in
            the plain network too.
        start: First d, at least 1; `d_max` if that is smaller.
        d_max: Largest d; None: D, the number of weights.
        resolution: The search ends when the two dimensions around the answer differ by no more
            than this share.
        together: Runs trained as one batch, see `fit_together`. Several dimensions are then
            trained as one: subsets of the columns of one P, as wide as the largest of them.

    Raises:
        TypeError: A value is of another type.
        ValueError: One is out of range.
    """

    threshold: float = 0.9
    absolute: bool = False
    metric: Metric = "validation"
    kind: Kind = "srht"
    where: Where = None
    start: int = 64
    d_max: int | None = None
    resolution: float = 0.1
    together: Together = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.absolute and not isfinite(self.threshold):
            raise ValueError(f"threshold={self.threshold}: give the value to reach, a number")
        if not self.absolute and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold}: give a share in (0, 1], such as 0.9")
        if not (self.resolution > 0 and isfinite(self.resolution)):
            raise ValueError(f"resolution={self.resolution}: give a share above 0, such as 0.1")
        if self.start < 1:
            raise ValueError(f"start={self.start}: give a dimension of at least 1")


class IntrinsicKeywords(TypedDict, total=False):
    """`IntrinsicOptions` as keyword arguments of `wf.intrinsic_dimension`."""

    options: IntrinsicOptions
    threshold: float
    absolute: bool
    metric: Metric
    kind: Kind
    where: Where
    start: int
    d_max: int | None
    resolution: float
    together: Together
