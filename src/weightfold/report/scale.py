"""Values of a task's measure as text: shares in percent, others to four significant digits."""

from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import Self

from weightfold.report.numbers import difference, mean_and_spread, number
from weightfold.report.statistics import Paired, Summary
from weightfold.tasks.measure import Measure


@dataclass(frozen=True)
class Scale:
    """The unit in which values of a measure are printed.

    Attributes:
        factor: By which values are multiplied.
        unit: Of a value: "%", or "" of one that is no share.
        points: Of a difference: "points", or "".
        digits: After the decimal point.
    """

    factor: float
    unit: str
    points: str
    digits: int

    @classmethod
    def of(cls, measure: Measure, near: float = 1.0, *, digits: int = 2) -> Self:
        """The unit of a measure.

        Args:
            measure: Of which task it is.
            near: A typical value, by which the digits of one that is no share are chosen.
            digits: Of a share, in percent.
        """
        if measure.share:
            return cls(100.0, "%", "points", digits)
        size = floor(log10(abs(near))) if near and isfinite(near) else 0
        return cls(1.0, "", "", max(0, 3 - size))

    def text(self, value: float) -> str:
        """A value with its unit."""
        return number(self.factor * value, self.digits, unit=self.unit)

    def mean(self, found: Summary, *, unit: bool = True) -> str:
        """Mean and spread over seeds, with or without the unit."""
        return mean_and_spread(
            found, self.digits, unit=self.unit if unit else "", factor=self.factor
        )

    def difference(self, found: Paired) -> str:
        """A paired difference."""
        return difference(found, self.digits, unit=self.points, factor=self.factor)

    def step(self, value: float) -> str:
        """A bound on a difference: "5 points", "0.05"."""
        return f"{self.factor * value:.3g}{f' {self.points}' if self.points else ''}"

    def label(self, name: str) -> str:
        """A name for columns and axes: "accuracy (%)"."""
        return f"{name} ({self.unit})" if self.unit else name


def margin(measure: Measure, share: float, trivial: float) -> float:
    """A small part of a measure's range: `share` itself of a measure that is a share.

    Of another, such a part of what the trivial predictor gets.
    """
    return share if measure.share else share * abs(trivial)
