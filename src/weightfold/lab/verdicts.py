"""What claims come to: comparisons that hold, do not hold, are undecided, or were not run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Literal

from weightfold.report.statistics import Paired, judge

Judged = Literal["holds", "undecided", "does not hold"]

WORST_FIRST: tuple[Judged, ...] = ("does not hold", "undecided", "holds")

MEANING = (
    "Differences are paired by seed. A comparison holds if the whole 95% Student-t interval of the "
    "mean difference lies on the claim's side; it is undecided if only the mean does, or if there "
    "is but one seed; else it does not hold. A claim of several comparisons is as good as the "
    "worst of those that were run, and says how many were not."
)


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim.

    Attributes:
        judged: What it came to; None if it was not run.
        text: The difference with its interval.
        p: Of the paired t test that the difference is not on the claim's side, doubled as the
            interval is two-sided; None without one.
        counts: Further figures for claims.csv.
    """

    judged: Judged | None
    text: str
    p: float | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        comparisons: Those the claim is about, run or not.
    """

    comparisons: tuple[Comparison, ...]

    @property
    def ran(self) -> list[Comparison]:
        """The comparisons that were run."""
        return [one for one in self.comparisons if one.judged is not None]

    @property
    def judged(self) -> Judged | None:
        """The worst of those run; None if none was."""
        return min((one.judged for one in self.ran if one.judged), key=WORST_FIRST.index,
                   default=None)  # fmt: skip

    @property
    def p(self) -> float | None:
        """The largest of those run, as the claim is that all hold; None if one has none."""
        found = [one.p for one in self.ran]
        known = [p for p in found if p is not None]
        return max(known) if known and len(known) == len(found) else None

    @property
    def text(self) -> str:
        """In words: "holds in 2 of 2 run, 3 not run"; "holds" only if all is one comparison."""
        run, of = len(self.ran), len(self.comparisons)
        if self.judged is None:
            return "not run"
        if of == 1:
            return self.judged
        counts = Counter(one.judged for one in self.ran)
        told = f"{self.judged} in {counts[self.judged]} of {run} run"
        rest = [f"{counts[other]} {_SHORT[other]}" for other in _SHORT
                if other != self.judged and counts[other]]  # fmt: skip
        rest += [f"{of - run} not run"] if run < of else []
        return ", ".join([told, *rest])

    @property
    def numbers(self) -> str:
        """A line for each comparison that was run."""
        return "\n".join(one.text for one in (self.ran or self.comparisons[:1]))


_SHORT: Mapping[Judged, str] = {
    "holds": "hold",
    "undecided": "undecided",
    "does not hold": "do not",
}


def verdict(judged: Judged | None, text: str, p: float | None = None) -> Verdict:
    """Of a single comparison."""
    return Verdict((Comparison(judged, text, p),))


def judged_of(difference: Paired) -> Judged:
    """Whether a difference is above 0: with its whole interval, only in its mean, or not."""
    found = judge(difference)
    return found if found in ("holds", "does not hold") else "undecided"  # type: ignore[return-value]


def p_value(difference: Paired) -> float | None:
    """Twice the one-sided p of a paired t test that the mean is above 0; None with one seed."""
    from scipy.stats import t

    if difference.std is None:
        return None
    if difference.std == 0:
        return 0.0 if difference.mean > 0 else 1.0
    statistic = difference.mean / (difference.std / sqrt(difference.n))
    return min(1.0, 2 * float(t.sf(statistic, difference.n - 1)))


def compared(difference: Paired | None, before: str, after: str = "") -> Comparison:
    """A comparison by a difference, described between two texts; not run without one."""
    if difference is None:
        return Comparison(None, f"{before}: not run")
    text = f"{before} {describe(difference)}{after}"
    return Comparison(judged_of(difference), text, p_value(difference))


def describe(difference: Paired) -> str:
    """The difference of two figures, with its interval and the number of seeds."""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.2f} (one seed)"
    interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{difference.mean:+.2f}, 95% {interval}, {difference.n} seeds"
