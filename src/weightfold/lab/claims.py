"""A paper's claims, and whether our results bear them out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from weightfold.lab.outcomes import Results
from weightfold.report.statistics import Paired, judge, paired

Holds = Literal["holds", "unclear", "does not hold", "not run"]

_ORDER: tuple[Holds, ...] = ("does not hold", "unclear", "holds", "not run")


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        holds: "holds": the paired difference is on the claim's side with its whole 95% interval;
            "unclear": only its mean, or there is but one seed; "does not hold": not even that.
        numbers: The differences, with their intervals.
    """

    holds: Holds
    numbers: str


R = TypeVar("R")
Check = Callable[[Results], Verdict]


@dataclass(frozen=True)
class Claim(Generic[R]):
    """A statement of the paper.

    Attributes:
        text: In our words.
        check: Judges it by an experiment's results.
    """

    text: str
    check: Callable[[R], Verdict]


def above(a: str, b: str, measure: str) -> Check:
    """Line `a` has a measure higher than line `b`, paired by seed."""

    def check(results: Results) -> Verdict:
        ours, others = results.values(a, measure), results.values(b, measure)
        seeds = sorted(ours.keys() & others.keys())
        if not seeds:
            return Verdict("not run", f"({a}) - ({b}): not run")
        difference = paired([ours[s] for s in seeds], [others[s] for s in seeds])
        text = f"{results.measure(measure).title}: ({a}) - ({b}) {describe(difference)}"
        printed = results.published(a, measure), results.published(b, measure)
        if printed[0] and printed[1]:
            text += f"; paper {printed[0][0] - printed[1][0]:+.2f}"
        return Verdict(judge(difference), text)

    return check


def below(a: str, b: str, measure: str) -> Check:
    """Line `a` has a measure lower than line `b`."""
    return above(b, a, measure)


def at_most(label: str, measure: str, limit: float) -> Check:
    """A line has a measure of at most `limit`."""

    def check(results: Results) -> Verdict:
        values = list(results.values(label, measure).values())
        if not values:
            return Verdict("not run", f"{label}: not run")
        room = paired([limit] * len(values), values)
        return Verdict(
            judge(room),
            f"{results.measure(measure).title}: {limit:g} - ({label}) {describe(room)}",
        )

    return check


def all_of(*checks: Check) -> Check:
    """Every check; of those that could be run, the worst verdict."""

    def check(results: Results) -> Verdict:
        verdicts = [one(results) for one in checks]
        run = [verdict.numbers for verdict in verdicts if verdict.holds != "not run"]
        left_out = len(verdicts) - len(run)
        rest = [f"{left_out} of {len(verdicts)} comparisons not run"] if left_out else []
        return Verdict(worst(v.holds for v in verdicts), "\n".join([*run, *rest]))

    return check


def worst(verdicts: Iterable[Holds]) -> Holds:
    """The verdict on several comparisons; those not run do not count, unless none was."""
    return min([*verdicts, "not run"], key=_ORDER.index)


def describe(difference: Paired) -> str:
    """The difference of two figures, with its interval and the number of seeds."""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.2f} (one seed)"
    interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{difference.mean:+.2f}, 95% {interval}, {difference.n} seeds"
