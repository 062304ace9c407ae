"""What `pendulum_dimension` returns."""

from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.probes.pendulum.search import LONGEST, PARAMETERS
from weightfold.records import within
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import mean_and_spread
from weightfold.report.page import Table
from weightfold.report.statistics import Paired, paired, summarize

PUBLISHED = (
    "The published 4 is of another task, InvertedPendulum in MuJoCo by evolution; the authors' "
    "cart-pole, by Q-learning and of 199,210 parameters, takes 25."
)
"""Of Li et al. 2018, Table 1, and of their code: neither is this policy search on cart-pole."""


@dataclass(frozen=True)
class Trial:
    """One trained policy.

    Attributes:
        dim: Coordinates it was trained in; None for the policy with all parameters.
        seed: Of its first weights, subspace, search and episodes.
        score: Mean return of its test episodes: steps balanced, at most 500.
        generations: Of the search, until every policy balanced or the budget was spent.
    """

    dim: Annotated[int, within(1, 2**20)] | None
    seed: int
    score: float
    generations: int


@dataclass(frozen=True, kw_only=True)
class PendulumDimension(Finding):
    """In how many coordinates a policy of 562 parameters learns to balance a pendulum.

    Attributes:
        trials: The policies, at least one with all parameters and one without.
        threshold: Share of the mean return of the policies with all parameters to reach.
    """

    probe: ClassVar[str] = "pendulum"
    trials: tuple[Trial, ...]
    threshold: float

    @property
    def dims(self) -> list[int]:
        """Dimensions tried, rising."""
        return sorted({t.dim for t in self.trials if t.dim is not None})

    @property
    def baseline(self) -> float:
        """Mean return of the policies with all parameters."""
        return fmean(self._scores(None))

    @property
    def bar(self) -> float:
        """Return to reach."""
        return self.threshold * self.baseline

    @property
    def by_seed(self) -> dict[int, int | None]:
        """Seed -> the smallest dimension tried whose policy reaches the bar; None if none does."""
        found: dict[int, int | None] = {}
        for seed in dict.fromkeys(t.seed for t in self.trials):
            reached = (
                t.dim
                for t in self.trials
                if t.dim is not None and t.seed == seed and t.score >= self.bar
            )
            found[seed] = min(reached, default=None)
        return found

    @property
    def dimension(self) -> float | None:
        """d_int: the geometric mean of `by_seed`; None if a seed never reaches the bar."""
        return None if (found := self._logarithm) is None else exp(found.mean)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% Student-t interval of `dimension`, over seeds on a logarithmic scale; from 1 up.

        None with one seed, or if a seed never reaches the bar.
        """
        found = self._logarithm
        if found is None or found.low is None or found.high is None:
            return None
        return max(1.0, exp(found.low)), exp(found.high)

    @property
    def _logarithm(self) -> Paired | None:
        logs = [log(d) for d in self.by_seed.values() if d is not None]
        return paired(logs, [0.0] * len(logs)) if len(logs) == len(self.by_seed) else None

    @property
    def reliable(self) -> int | None:
        """Smallest dimension tried from which on every policy reaches the bar; None if none."""
        short = [t.dim for t in self.trials if t.dim is not None and t.score < self.bar]
        return next((d for d in self.dims if d > max(short, default=0)), None)

    def _scores(self, dim: int | None) -> list[float]:
        return [t.score for t in self.trials if t.dim == dim]

    @property
    def doubt(self) -> str:
        """That the policy with all parameters does not balance."""
        if self.baseline >= LONGEST / 2:
            return ""
        return (
            f"With all {PARAMETERS} parameters the policy balances {self.baseline:.0f} of "
            f"{LONGEST} steps only, so that the dimension means little."
        )

    @property
    def headline(self) -> str:
        """The dimension, its interval over seeds and the published ones, of other tasks."""
        goal = (
            f"{self.threshold:.0%} of the {self.baseline:.0f} steps that it balances with all "
            f"{PARAMETERS} parameters"
        )
        if self.dimension is None:
            answer = (
                f"In up to {self.dims[-1]} coordinates, the most tried, the policy does not reach "
                f"{goal} with every seed."
            )
        else:
            how = f"n = {len(self.by_seed)}"
            if self.interval is not None:
                low, high = self.interval
                how = f"95% interval {low:.1f} to {high:.1f}, {how}"
            answer = (
                f"The policy learns to balance the pendulum in {self.dimension:.1f} coordinates "
                f"({how}): there it reaches {goal}."
            )
        tried = ", ".join(map(str, self.dims))
        each = ", ".join("none" if d is None else str(d) for d in self.by_seed.values())
        always = "" if self.reliable is None else f"; from {self.reliable} on every seed does"
        first = f"{self.doubt} " if self.doubt else ""
        return (
            f"{first}{answer} Seed by seed the smallest of {tried} to do so: {each}{always}. "
            f"{PUBLISHED}"
        )

    @property
    def meaning(self) -> str:
        """What the dimension says of the task."""
        return (
            "The policy's weights are confined to a random subspace through its first weights. The "
            "smallest dimension in which it still learns the task tells how hard the task is for "
            "it, whatever the number of its weights; for handwritten digits it is some hundreds."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A line for each policy; no `dim` for those with all parameters."""
        return [asdict(t) for t in self.trials]

    def table(self) -> Table | None:
        """Mean return and its spread over seeds, a line for each dimension."""
        lines = []
        for dim in (*self.dims, None):
            found = summarize(self._scores(dim))
            reached = "" if dim is None else "yes" if found.mean >= self.bar else "no"
            name = f"all {PARAMETERS}" if dim is None else str(dim)
            lines.append([name, mean_and_spread(found, 0), reached])
        return Table(["coordinates", "steps balanced", f"at least {self.bar:.0f}"], lines)

    def draw(self, path: Path) -> None:
        """Return against dimension, of each policy and in the mean over seeds."""
        with drawing(path, figsize=(7, 4.6)) as (figure, axis):
            kept = [t for t in self.trials if t.dim is not None]
            x, y = [t.dim for t in kept], [t.score for t in kept]
            axis.plot(x, y, "o", color=COLOURS[0], alpha=0.5, markersize=5, label="a policy")
            means = [fmean(self._scores(d)) for d in self.dims]
            axis.plot(self.dims, means, color=COLOURS[0], label=f"mean (n = {len(self.by_seed)})")
            full, share = f"all {PARAMETERS} parameters", f"{self.threshold:.0%} of it"
            axis.axhline(self.baseline, color=COLOURS[6], label=full)
            axis.axhline(self.bar, color=COLOURS[6], linestyle="--", label=share)
            axis.set_xscale("log")
            axis.set_xticks(self.dims, [str(d) for d in self.dims])
            axis.minorticks_off()
            axis.set(
                xlabel="coordinates d",
                ylabel=f"steps balanced, at most {LONGEST}",
                ylim=(0, 1.04 * LONGEST),
            )
            axis.grid(alpha=0.3)
            figure.legend(loc="outside upper center", ncols=3, fontsize="small", frameon=False)
