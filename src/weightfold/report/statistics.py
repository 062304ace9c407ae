"""Mean, spread and paired differences over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any, Literal


@dataclass(frozen=True)
class Summary:
    """Of one figure over seeds, in that figure's unit.

    Attributes:
        mean: Arithmetic mean.
        std: Sample standard deviation (n - 1); None for one value.
        n: Number of values.
    """

    mean: float
    std: float | None
    n: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation.

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("values is empty; summarize takes at least one")
    return Summary(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Paired:
    """The difference of two figures measured on the same seeds.

    Attributes:
        mean: Mean of the differences.
        std: Their sample standard deviation; None for one pair.
        low: Lower end of the two-sided Student-t interval of the mean; None for one pair.
        high: Upper end; None for one pair.
        n: Number of pairs.
        level: Confidence level of the interval.
        p: Two-sided p-value of Student's paired t-test of no difference; None for one pair.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int
    level: float
    p: float | None = None

    def scaled(self, factor: float) -> "Paired":
        """The same in another unit: 100 for percentage points of shares; `factor` above 0."""
        std, low, high = (
            None if value is None else factor * value for value in (self.std, self.low, self.high)
        )
        return Paired(factor * self.mean, std, low, high, self.n, self.level, self.p)

    @property
    def negated(self) -> "Paired":
        """The second figure minus the first."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Paired(-self.mean, self.std, low, high, self.n, self.level, self.p)

    def minus(self, bar: float) -> "Paired":
        """How far it is above `bar`; p, which is of no difference, is left out."""
        low, high = (None if end is None else end - bar for end in (self.low, self.high))
        return Paired(self.mean - bar, self.std, low, high, self.n, self.level)


Judged = Literal["holds", "undecided", "does not hold"]
Ends = tuple[float | None, float | None]
"""Of an interval, lower and upper; None if there is none."""


def judge(difference: Paired) -> Judged:
    """Whether a difference is above 0.

    Returns:
        "holds" if its whole interval is, "does not hold" if its whole interval is at or below 0;
        "undecided" if 0 lies within it, or if one pair gives none.
    """
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "holds"
    return "does not hold" if difference.high <= 0 else "undecided"


def judge_apart(more: Ends, less: Ends) -> Judged:
    """Whether one figure is above another, by intervals that are not paired."""
    (a_low, a_high), (b_low, b_high) = more, less
    if a_low is None or a_high is None or b_low is None or b_high is None:
        return "undecided"
    if b_high < a_low:
        return "holds"
    return "does not hold" if a_high <= b_low else "undecided"


def judge_within(difference: Paired, bar: float) -> Judged:
    """Whether a difference is at most `bar` either way, as `judge` says it."""
    low, high = difference.low, difference.high
    if low is None or high is None:
        return "undecided"
    if max(-low, high) <= bar:
        return "holds"
    return "does not hold" if low > bar or high < -bar else "undecided"


def paired(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Paired:
    """The difference a - b, pair by pair.

    Args:
        a: One value per seed.
        b: The value to compare with, of the same seeds in the same order.
        level: Confidence level, in (0, 1).

    Raises:
        ImportError: scipy is not installed.
        ValueError: `a` and `b` differ in length or are empty, or `level` is out of range.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b {len(b)}; give one of each per seed")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: it must be in (0, 1)")
    difference = summarize([x - y for x, y in zip(a, b, strict=True)])
    mean, std, n = difference.mean, difference.std, difference.n
    if std is None:
        return Paired(mean, None, None, None, n, level)
    half = _student().ppf((1 + level) / 2, n - 1) * std / sqrt(n)
    if std > 0:
        p = 2 * float(_student().sf(abs(mean) / (std / sqrt(n)), n - 1))
    else:
        p = 0.0 if mean else 1.0
    return Paired(mean, std, float(mean - half), float(mean + half), n, level, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down correction (Holm 1979), in the given order.

    Of claims judged at once, those whose adjusted value is below 0.05 hold together with a chance
    of at most 5% that any of them holds by accident.

    Args:
        p_values: One per claim, in [0, 1].

    Raises:
        ValueError: One is out of range.
    """
    if bad := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"p_values has {bad[0]}; p-values lie in [0, 1]")
    count, largest = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _student() -> Any:
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError(
            "intervals of paired differences need scipy: pip install 'weightfold[train]'"
        ) from error
    return t
