"""What searching for the intrinsic dimension found."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path
from typing import Any, ClassVar, Self

from weightfold.probes.finding import Finding
from weightfold.probes.intrinsic import search
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import count
from weightfold.report.page import Table
from weightfold.report.scale import Scale
from weightfold.report.statistics import Paired, Summary, paired, summarize
from weightfold.tasks.measure import ACCURACY, Measure
from weightfold.train.recipe import Recipe

LEVEL = 0.95
"""Confidence level of intervals."""


@dataclass(frozen=True)
class Trained:
    """A network trained once.

    Attributes:
        dim: Coordinates trained; None: all of them, in the plain network.
        seed: Of the run.
        start: The task's measure before training.
        value: At the last epoch; None if the run failed.
        best: After any epoch; None if the run failed.
        best_epoch: The first epoch that reached it, from 1; None if the run failed.
        failed: Why there is no value; "" if there is one.
    """

    dim: int | None
    seed: int
    start: float
    value: float | None
    best: float | None = None
    best_epoch: int | None = None
    failed: str = ""

    @property
    def name(self) -> str:
        """What it is called in notes."""
        network = "the plain network" if self.dim is None else f"d = {self.dim}"
        return f"{network}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class IntrinsicDimension(Finding):
    """The smallest d that does nearly as well as the plain network (Li et al. 2018).

    Attributes:
        network: Class of the network.
        data: Name of the data.
        parameters: D, the weights that the subspace is of.
        metric: "validation" or "train".
        part: The part of the data that values are of: "validation", "test" or "train".
        examples: How many examples it has.
        threshold: Share of what the plain network reaches, see `bar`, or the bar itself.
        absolute: Whether it is the bar itself.
        kind: Of the projection.
        seeds: In order.
        baselines: The plain network, a run for each seed.
        trained: A run for each dimension and seed, by rising dimension.
        recipe: Hyperparameters of all runs.
        published: A published value to compare with; None for none.
        measure: The task's first, which values are of.
        trivial: What the trivial predictor gets by it.
    """

    probe: ClassVar[str] = "intrinsic-dimension"
    answers: ClassVar[tuple[str, ...]] = ("dimension", "interval", "bracket")
    former: ClassVar[Mapping[str, str]] = {"accuracy": "value"}
    network: str
    data: str
    parameters: int
    metric: str
    part: str
    examples: int
    threshold: float
    kind: str
    seeds: tuple[int, ...]
    baselines: tuple[Trained, ...]
    trained: tuple[Trained, ...]
    recipe: Recipe
    published: float | None = None
    absolute: bool = False
    measure: Measure = ACCURACY
    trivial: float = 0.0

    def beside(self, published: float) -> Self:
        """The finding with a published value in headline and figure."""
        return replace(self, published=published)

    @property
    def baseline(self) -> Summary:
        """The measure of the plain network over seeds; failed runs are left out."""
        return summarize([run.value for run in self.baselines if run.value is not None])

    @property
    def bar(self) -> float:
        """The value to reach: the threshold times the plain network's mean, or itself.

        Where lower is better, the threshold's share of the way from the trivial predictor's value
        to the plain network's mean: ours.
        """
        if self.absolute:
            return self.threshold
        start = 0.0 if self.measure.higher_is_better else self.trivial
        return start + self.threshold * (self.baseline.mean - start)

    def height(self, value: float) -> float:
        """A value of the measure, so that more is better."""
        return value if self.measure.higher_is_better else -value

    @property
    def scale(self) -> Scale:
        """How values are printed."""
        return Scale.of(self.measure, self.baseline.mean)

    def at(self, threshold: float, *, absolute: bool) -> Self:
        """The same runs judged by another bar; where they did not go near it, the answer is coarse.

        Args:
            threshold: As of the probe.
            absolute: As of the probe.
        """
        return replace(self, threshold=threshold, absolute=absolute)

    @property
    def doubt(self) -> str:
        """That the plain network's value spreads over seeds by more than it is above the bar.

        The bar is a matter of chance then, and so is every dimension read at it.
        """
        above = self.height(self.baseline.mean) - self.height(self.bar)
        if (self.baseline.std or 0.0) <= max(above, 0.0):
            return ""
        return (
            f"No intrinsic dimension can be told: the plain network is not trained reliably "
            f"({self._plain}), so that a bar of {self.scale.text(self.bar)} means nothing. Lower "
            "lr, or train longer."
        )

    @property
    def curve(self) -> dict[int, tuple[float | None, ...]]:
        """Dimension -> value for each seed, None where the run failed; by rising dimension."""
        found = {(run.dim, run.seed): run.value for run in self.trained}
        dims = sorted({run.dim for run in self.trained if run.dim is not None})
        return {d: tuple(found[d, seed] for seed in self.seeds) for d in dims}

    @property
    def heights(self) -> search.Curve:
        """The curve, so that more is better."""
        return search.heights(self.curve, self.measure)

    @property
    def crossings(self) -> dict[int, float | None]:
        """Seed -> dimension at which it first reaches the bar, see `search.crossing`."""
        curve, bar = self.heights, self.height(self.bar)
        return {s: search.crossing(curve, i, bar) for i, s in enumerate(self.seeds)}

    @property
    def bracket(self) -> tuple[int | None, int | None]:
        """The smallest dimension that every seed reaches the bar with, and the one before it.

        As (low, high), see `search.bracket`.
        """
        return search.bracket(self.heights, self.height(self.bar))

    @property
    def dimension(self) -> float | None:
        """d_int: the geometric mean of the seeds' crossings.

        None if some dimension was not enough for every seed up to the largest tried, `tried`.
        """
        return None if (found := self._logarithm) is None else exp(found.mean)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student-t interval of d_int at level `LEVEL`, on a logarithmic scale over seeds.

        None with one seed, or if there is no d_int. How far the bar itself is uncertain is not
        in it.
        """
        found = self._logarithm
        if found is None or found.low is None or found.high is None:
            return None
        return exp(found.low), exp(found.high)

    @property
    def _logarithm(self) -> Paired | None:
        if self.bracket[1] is None:
            return None
        logs = [log(d) for d in self.crossings.values() if d is not None]
        return paired(logs, [0.0] * len(logs), LEVEL)

    @property
    def tried(self) -> int:
        """The largest dimension tried: a bound from below if there is no d_int."""
        return max(self.curve)

    @property
    def bounded_above(self) -> bool:
        """Whether a seed reaches the bar with the smallest dimension tried already."""
        smallest, bar = self.heights[min(self.curve)], self.height(self.bar)
        return any(height is not None and height >= bar for height in smallest)

    @property
    def policy(self) -> str:
        """Recipe and projection, which the answer depends on."""
        recipe = self.recipe
        decay = f", decay {recipe.weight_decay:g} on {recipe.decay_on}"
        return (
            f"{recipe.optimizer}, lr {recipe.lr:g} ({recipe.schedule}), batch {recipe.batch_size}, "
            f"{recipe.epochs} epochs{decay if recipe.weight_decay else ''} for the plain network "
            f"and every d; projection {self.kind}"
        )

    @property
    def headline(self) -> str:
        """The answer in words."""
        if self.doubt:
            return self.doubt
        goal = f"{self._goal} ({self._plain})"
        published = "" if self.published is None else f" Published: {self.published:,.0f}."
        if self.dimension is None:
            reached = sum(d is not None for d in self.crossings.values())
            some = f"; {reached} of {len(self.seeds)} seeds did" if reached else ""
            return (
                f"The intrinsic dimension is above {self.tried:,}, the largest that was tried: so "
                f"many trained coordinates did not reach {goal} in every run{some}.{published}"
            )
        number = "at most " if self.bounded_above else "about "
        return (
            f"The intrinsic dimension is {number}{self._answer}: training so many coordinates, "
            f"{_share(self.dimension / self.parameters)} of the network's, reaches {goal}."
            f"{published}"
        )

    @property
    def _plain(self) -> str:
        """What the plain network reaches, in words."""
        return (
            f"all {self.parameters:,} reach {self.scale.mean(self.baseline)} {_ON[self.part]}, "
            f"{count(self.baseline.n, 'seed')}"
        )

    @property
    def _goal(self) -> str:
        """The bar in words."""
        name, scale = self.measure.name, self.scale
        if self.absolute:
            return f"{name} {scale.factor * self.threshold:g}{scale.unit}"
        share = f"{100 * self.threshold:g}% of the"
        if self.measure.higher_is_better:
            return f"{share} {name} of the plain network"
        trivial = scale.text(self.trivial)
        return f"{share} way from the trivial predictor's {name}, {trivial}, to the plain network's"

    @property
    def _answer(self) -> str:
        """The dimension with its interval."""
        assert self.dimension is not None
        seeds = sum(d is not None for d in self.crossings.values())
        if self.interval is None:
            return f"{self.dimension:,.0f} (one seed, no interval)"
        low, high = self.interval
        return (
            f"{self.dimension:,.0f} ({100 * LEVEL:g}% interval {low:,.0f} to {high:,.0f}, "
            f"{count(seeds, 'seed')})"
        )

    @property
    def meaning(self) -> str:
        """What an intrinsic dimension is."""
        learnt = "fit its training set" if self.metric == "train" else "learn what the data asks"
        return (
            "The network starts from its initial weights and is trained along d random directions "
            "only; the smallest d that suffices is the intrinsic dimension of network and data "
            f"together. It tells how many numbers training must find to {learnt}: if it is far "
            "below the number of weights, most of them are not needed for what is learnt, although "
            "a small network of so many weights need not learn as well. It depends on the recipe, "
            "which was the same for every d: more steps or a better suited optimizer may lower it."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A line for each run; shares in [0, 1]."""
        name = self.measure.name
        return [
            {
                "network": "plain" if run.dim is None else "subspace",
                "dim": self.parameters if run.dim is None else run.dim,
                "seed": run.seed,
                f"start_{name}": run.start,
                name: run.value,
                f"best_{name}": run.best,
                "best_epoch": run.best_epoch,
                "failed": run.failed,
            }
            for run in (*self.baselines, *self.trained)
        ]

    def table(self) -> Table | None:
        """The measure for each dimension, and how many seeds reach the bar."""
        scale, bar = self.scale, self.height(self.bar)
        side = "above" if self.measure.higher_is_better else "below"
        label = scale.label(f"{self.measure.name} {_ON[self.part]}")
        columns = ["d", label, f"at {scale.text(self.bar)} or {side}"]
        rows = [["all weights", scale.mean(self.baseline, unit=False), ""]]
        for d, values in self.curve.items():
            known = [value for value in values if value is not None]
            reached = sum(self.height(value) >= bar for value in known)
            cell = scale.mean(summarize(known), unit=False) if known else "failed"
            rows.append([f"{d:,}", cell, f"{reached} of {len(known)} seeds"])
        return Table(columns, rows)

    def draw(self, path: Path) -> None:
        """The measure against d, with the bar, the answer, its interval and the published value."""
        from matplotlib.ticker import LogLocator, NullFormatter

        factor = self.scale.factor
        curve = {
            d: [factor * value for value in values if value is not None]
            for d, values in self.curve.items()
        }
        curve = {d: known for d, known in curve.items() if known}
        grey = COLOURS[-1]
        with drawing(path, figsize=(8, 4.8)) as (figure, axis):
            points = [(d, a) for d, known in curve.items() for a in known]
            x, y = zip(*points, strict=True) if points else ((), ())
            axis.plot(x, y, "o", color=COLOURS[0], alpha=0.55, markersize=4, label="a seed")
            means = [summarize(known).mean for known in curve.values()]
            axis.plot(list(curve), means, color=COLOURS[0], label="mean of seeds")
            plain = factor * self.baseline.mean
            axis.axhline(plain, color=grey, linewidth=1, label="all weights trained")
            label = self._goal
            axis.axhline(factor * self.bar, color=grey, linewidth=1, linestyle="--", label=label)
            if self.dimension is not None and not self.doubt:
                bound = "≤ " if self.bounded_above else ""
                axis.axvline(
                    self.dimension, color=COLOURS[1], label=f"ours: {bound}{self.dimension:,.0f}"
                )
                if self.interval is not None:
                    axis.axvspan(
                        *self.interval, color=COLOURS[1], alpha=0.2, linewidth=0,
                        label=f"{100 * LEVEL:g}% interval",
                    )  # fmt: skip
            if self.published is not None:
                axis.axvline(
                    self.published, color=COLOURS[2], linestyle=":",
                    label=f"published: {self.published:,.0f}",
                )  # fmt: skip
            shown = [*self.curve, *([] if self.published is None else [self.published])]
            axis.set_xscale("log")
            axis.set_xlim(min(shown) / 1.3, max(shown) * 1.3)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:,.0f}")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set(
                xlabel=f"coordinates trained, d (of {self.parameters:,})",
                ylabel=self.scale.label(f"{self.measure.name} {_ON[self.part]}, last epoch"),
            )
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small")
            figure.supxlabel(self.policy, fontsize="small")
            figure.suptitle(f"{self.network} on {self.data}: {count(len(self.seeds), 'seed')}")


_ON = {
    "validation": "on the validation set",
    "test": "on the test set",
    "train": "on the training set",
}


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"
