"""What claims come to: comparisons that hold, do not hold, are undecided, or were not run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weightfold.report.numbers import difference
from weightfold.report.statistics import Judged, Paired, judge

WORST_FIRST: tuple[Judged, ...] = ("does not hold", "undecided", "holds")

MEANING = (
    "Differences are paired by seed. A comparison holds if the whole 95% Student-t interval of the "
    "mean difference lies on the claim's side, and does not hold if the whole interval lies on the "
    "other; if it spans both, or if there is but one seed, it is undecided. A claim of several "
    "comparisons holds if all of them hold, and does not if one does not; it is undecided else, as "
    "it is where those that were run hold and others were not run."
)


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim.

    Attributes:
        judged: What it came to; None if it was not run.
        text: The difference with its interval.
        p: Of the paired t test that there is no difference, 1 if it is on the other side; None
            without one.
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
        together: All that were run taken as one, for the reader: it judges nothing.
    """

    comparisons: tuple[Comparison, ...]
    together: Comparison | None = None

    @property
    def ran(self) -> list[Comparison]:
        """The comparisons that were run."""
        return [one for one in self.comparisons if one.judged is not None]

    @property
    def judged(self) -> Judged | None:
        """The worst of those run; at best "undecided" if some were not, None if none was."""
        found = [one.judged for one in self.ran if one.judged]
        if found and len(found) < len(self.comparisons):
            found.append("undecided")
        return min(found, key=WORST_FIRST.index, default=None)

    @property
    def p(self) -> float | None:
        """The largest, as the claim is that all hold; None if one has none or was not run."""
        found = [one.p for one in self.comparisons]
        known = [p for p in found if p is not None]
        return max(known) if known and len(known) == len(found) else None

    @property
    def text(self) -> str:
        """In words: "holds"; of several "holds in all 2 comparisons" or what they came to.

        Such as "undecided: of 5 comparisons 2 hold, 3 not run".
        """
        of = len(self.comparisons)
        if self.judged is None:
            return "not run"
        if of == 1:
            return self.judged
        counts = Counter(one.judged for one in self.comparisons)
        if len(counts) == 1:
            within = "in any of" if self.judged == "does not hold" else "in all"
            return f"{self.judged} {within} {of} comparisons"
        told = [f"{n} {_SHORT[judged][n > 1]}" for judged in _SHORT if (n := counts[judged])]
        return f"{self.judged}: of {of} comparisons {', '.join(told)}"

    @property
    def numbers(self) -> str:
        """A line for each comparison that was run, and for all of them together."""
        lines = [one.text for one in (self.ran or self.comparisons[:1])]
        return "\n".join([*lines, self.together.text] if self.together else lines)


_SHORT: Mapping[Judged | None, tuple[str, str]] = {
    "holds": ("holds", "hold"),
    "does not hold": ("does not", "do not"),
    "undecided": ("undecided", "undecided"),
    None: ("not run", "not run"),
}
"""Of one comparison, and of several."""


def verdict(judged: Judged | None, text: str, p: float | None = None) -> Verdict:
    """Of a single comparison."""
    return Verdict((Comparison(judged, text, p),))


def p_of(found: Paired, *, below: bool = False) -> float | None:
    """The p of a claim that a difference is above 0, or below: two-sided, 1 on the other side."""
    claimed = found.mean < 0 if below else found.mean > 0
    return found.p if claimed or found.p is None else 1.0


def compared(found: Paired | None, before: str, after: str = "") -> Comparison:
    """A comparison by a difference, written between two texts; not run without one."""
    if found is None:
        return Comparison(None, f"{before}: not run")
    return Comparison(judge(found), f"{before} {difference(found)}{after}", p_of(found))
