"""What is measured of a unit that was set back."""

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from weightfold.tasks.measure import ACCURACY, Measure

DRAWN = "drawn anew"

V = TypeVar("V", float, Tensor)


def as_error(measure: Measure, value: V) -> V:
    """A value of a measure, so that less is better: of a share what is missing to 1."""
    if not measure.higher_is_better:
        return value
    return 1 - value if measure.share else -value


def error_name(measure: Measure) -> str:
    """What `as_error` gives, in words."""
    if not measure.higher_is_better:
        return measure.name
    if measure == ACCURACY:
        return "error"
    return f"1 - {measure.name}" if measure.share else f"-{measure.name}"


@dataclass(frozen=True)
class Cell:
    """What a network with one unit set back gets wrong on the test set.

    Attributes:
        unit: The unit; "" for the trained network as it is.
        source: The epoch the unit is set back to, or "drawn anew".
        seed: Of the network.
        draw: Which of the draws, from 0; None for an epoch.
        error: By the task's first measure, see `as_error`: of class labels the share of examples
            that are wrong, in [0, 1].
        loss: Mean loss of the examples; None if it is not finite, or only the model knows it.
    """

    unit: str
    source: int | str
    seed: int
    draw: int | None
    error: float
    loss: float | None


@dataclass(frozen=True)
class Distance:
    """How far training took a unit, over its p parameters.

    Attributes:
        unit: The unit.
        seed: Of the network.
        l2: |theta_T - theta_0|_2 / sqrt(p).
        linf: max |theta_T - theta_0|.
    """

    unit: str
    seed: int
    l2: float
    linf: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over units.

    Attributes:
        rho: In [-1, 1].
        p: Two-sided p-value of no correlation.
        n: Number of units.
    """

    rho: float
    p: float
    n: int
