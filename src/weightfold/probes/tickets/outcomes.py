"""What became of each network of a lottery ticket experiment, and how its kinds compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from weightfold.report.statistics import Judged, Paired, judge, paired

Kind = Literal["full", "ticket", "fresh", "random"]

TITLES: dict[Kind, str] = {
    "full": "full network",
    "ticket": "ticket",
    "fresh": "re-initialised",
    "random": "random mask",
}
"""A ticket and its two controls: its mask with weights drawn anew; its start weights with a mask
of as many survivors in each tensor at random places."""

FEWEST = 3
"""Trials below which no comparison holds: of two that agree by chance the interval is a point."""

Key = Literal["iteration", "value", "final_value", "train_value"]
"""What there is of each network, see `Outcome`."""


@dataclass(frozen=True)
class Outcome:
    """One network, trained once.

    Attributes:
        kind: What it was.
        level: How often weights were pruned before; 0: never.
        seed: The trial.
        draw: Which of the trial's random masks; else 0.
        remaining: Share of the prunable weights that it has, in (0, 1].
        iteration: Early stopping: optimizer steps to the lowest validation loss, counted from the
            initial weights.
        last_iteration: Optimizer steps at the end; where `iteration` is that, it is a lower bound.
        value: The task's first measure on the test set, at early stopping.
        final_value: The same at the end.
        train_value: Over the examples of the last steps before the last measurement, as they
            were trained on; None of a measure that only a whole part has.
        seconds: Of training and measuring.
        curve: (iteration, validation loss, the measure on the test set) at each measurement.
    """

    kind: Kind
    level: int
    seed: int
    draw: int
    remaining: float
    iteration: int
    last_iteration: int
    value: float
    final_value: float
    train_value: float | None
    seconds: float
    curve: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Comparison:
    """The ticket against another kind at one level, paired by trial.

    Attributes:
        other: The other kind.
        iterations: Early-stopping iteration of the ticket minus the other's.
        value: The measure at early stopping, the ticket's minus the other's.
        open: Trials in which both were still learning at the end: who is faster is not known.
    """

    other: Kind
    iterations: Paired
    value: Paired
    open: int = 0

    @property
    def faster(self) -> Judged:
        """Whether the ticket learns faster; "undecided" where interval or open trials leave it."""
        judged = _below(self.iterations)
        return "undecided" if self.open and judged == "does not hold" else judged


class Outcomes:
    """All networks that were trained to the end, and their figures by level, kind and trial.

    Args:
        outcomes: In any order.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._all = tuple(outcomes)

    @property
    def levels(self) -> list[int]:
        """Levels at which there are tickets, from 1."""
        return sorted({o.level for o in self._all if o.kind == "ticket"})

    def remaining(self, level: int) -> float:
        """Share of the prunable weights at a level."""
        return next(o.remaining for o in self._all if o.level == level)

    def values(self, kind: Kind, level: int, figure: Key) -> dict[int, float]:
        """Seed -> figure, the mean over a trial's random masks; the full network is of level 0."""
        level = 0 if kind == "full" else level
        found: dict[int, list[float]] = {}
        for o in self._all:
            if (o.kind, o.level) == (kind, level) and getattr(o, figure) is not None:
                found.setdefault(o.seed, []).append(getattr(o, figure))
        return {seed: fmean(values) for seed, values in sorted(found.items())}

    def difference(self, other: Kind, level: int, figure: Key) -> Paired | None:
        """Ticket minus `other`, over the trials that have both; None if none has."""
        ticket, others = (self.values(kind, level, figure) for kind in ("ticket", other))
        seeds = [seed for seed in ticket if seed in others]
        if not seeds:
            return None
        return paired([ticket[s] for s in seeds], [others[s] for s in seeds])

    def comparisons(self, level: int) -> list[Comparison]:
        """The ticket of a level against each other kind that was trained."""
        found = []
        for other in TITLES:
            iterations = self.difference(other, level, "iteration")
            value = self.difference(other, level, "value")
            if other != "ticket" and iterations is not None and value is not None:
                both_late = self.late("ticket", level) & self.late(other, level)
                found.append(Comparison(other, iterations, value, len(both_late)))
        return found

    def late(self, kind: Kind, level: int) -> set[int]:
        """Trials whose validation loss was lowest at the very end; the full network's level is 0.

        Their early-stopping iteration is a lower bound.
        """
        level = 0 if kind == "full" else level
        return {
            o.seed
            for o in self._all
            if (o.kind, o.level) == (kind, level) and o.iteration == o.last_iteration
        }

    def unstopped(self) -> dict[Kind, tuple[int, int]]:
        """Kind -> (networks whose validation loss was lowest at the very end, all of the kind)."""
        counts: dict[Kind, tuple[int, int]] = {}
        for o in self._all:
            late, count = counts.get(o.kind, (0, 0))
            counts[o.kind] = (late + (o.iteration == o.last_iteration), count + 1)
        return {kind: counts[kind] for kind in TITLES if counts.get(kind, (0, 0))[0]}


def _below(difference: Paired) -> Judged:
    return "undecided" if difference.n < FEWEST else judge(difference.negated)
