"""What `lottery_ticket` returns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from torch import Tensor

from weightfold.probes.finding import Finding
from weightfold.probes.tickets.masks_file import Masks, write_masks
from weightfold.probes.tickets.outcomes import TITLES, Key, Kind, Outcome, Outcomes
from weightfold.records import UNRECORDED
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import difference, mean_and_spread
from weightfold.report.page import Table
from weightfold.report.scale import Scale, margin
from weightfold.report.statistics import summarize
from weightfold.tasks.measure import ACCURACY, Measure

PUBLISHED_SHARE = 0.211
"""Of the LeNet ticket that learns fastest (Frankle and Carbin 2019, Key 3); the headline is of
the level nearest to it, whatever came out."""

TOLERANCE = 0.005
"""A ticket whose mean test accuracy is at most so much lower is as good as the full network; of a
measure that is no share, it is a part of what the trivial predictor gets, as is `LEARNT`."""

LEARNT = 0.05
"""A full network must be better than chance by more than this for its tickets to tell anything;
ours."""

_NAMES: dict[Kind, str] = {
    "full": "the full network",
    "fresh": "the re-initialised network",
    "random": "the network under a random mask",
}
_KINDS: tuple[Kind, ...] = ("ticket", "fresh", "random")


@dataclass(frozen=True, kw_only=True)
class LotteryTicket(Finding):
    """Winning tickets of a network, and how they learn beside the full network and two controls.

    Attributes:
        outcomes: Every network that was trained to the end.
        trials: Trials that were asked for.
        weights: Prunable weights of the full network.
        chance: What the trivial predictor gets on the test set, such as the accuracy of always
            naming the class most frequent in training.
        masks: (level, seed) -> tensor name -> bool mask of the ticket, True where a weight
            survives. Not part of the record; see `save_masks`.
        starts: Seed -> tensor name -> what the trial's tickets start from: all parameters and
            buffers, initial or after `rewind` steps. Not part of the record.
        measure: The task's first.
    """

    probe: ClassVar[str] = "lottery-ticket"
    per_seed: ClassVar[tuple[str, ...]] = ("outcomes", "trials")
    former: ClassVar[Mapping[str, str]] = {
        "accuracy": "value",
        "final_accuracy": "final_value",
        "train_accuracy": "train_value",
    }
    outcomes: tuple[Outcome, ...]
    trials: int
    weights: int
    chance: float = 0.0
    measure: Measure = ACCURACY
    masks: Mapping[tuple[int, int], Masks] = field(
        default_factory=dict, repr=False, compare=False, metadata=UNRECORDED
    )
    starts: Mapping[int, Mapping[str, Tensor]] = field(
        default_factory=dict, repr=False, compare=False, metadata=UNRECORDED
    )

    @property
    def results(self) -> Outcomes:
        """The outcomes, by level, kind and trial."""
        return Outcomes(self.outcomes)

    @property
    def scale(self) -> Scale:
        """How values are printed."""
        return Scale.of(self.measure, self.chance or 1.0)

    @property
    def tolerance(self) -> float:
        """By how much a ticket may be worse than the full network, and still as good."""
        return margin(self.measure, TOLERANCE, self.chance)

    def _better(self, difference: float) -> float:
        """By how much more is better."""
        return difference if self.measure.higher_is_better else -difference

    @property
    def smallest(self) -> float | None:
        """Least share of weights at which a ticket is as good as the full network.

        The mean of its measure at early stopping is at most `tolerance` worse, at this level and
        every level before; None if that is so at no level.
        """
        found = None
        for level in self.results.levels:
            difference = self.results.difference("full", level, "value")
            if difference is None or self._better(difference.mean) < -self.tolerance:
                break
            found = self.results.remaining(level)
        return found

    @property
    def doubt(self) -> str:
        """That the full network hardly learnt, or that a control does better than the ticket."""
        results, scale = self.results, self.scale
        full = list(results.values("full", 0, "value").values())
        learnt = margin(self.measure, LEARNT, self.chance)
        if full and self._better(fmean(full) - self.chance) <= learnt:
            return (
                f"The full network hardly learned anything (test {self.measure.name} "
                f"{scale.text(fmean(full))}, chance {scale.text(self.chance)}), so that nothing "
                "follows on what can be pruned."
            )
        shares = {results.remaining(n): n for n in results.levels}
        level = shares.get(self.smallest) if self.smallest else max(results.levels, default=None)
        if level is None:
            return ""
        controls: tuple[Kind, ...] = ("random", "fresh")
        found = {k: results.difference(k, level, "value") for k in controls}
        better = [
            f"{_NAMES[kind]} ({scale.difference(d.negated)})"
            for kind, d in found.items()
            if d is not None and self._better(d.mean) < 0
        ]
        if not better:
            return ""
        return (
            f"At {results.remaining(level):.1%} of the weights the ticket is no winning one: "
            f"{' and '.join(better)} {'are' if len(better) > 1 else 'is'} better on average."
        )

    @property
    def headline(self) -> str:
        """The tickets of the level nearest to 21.1% of weights, and how few weights suffice."""
        results = self.results
        if not results.levels:
            return "No ticket was trained to the end, so nothing can be said."
        level = min(
            results.levels, key=lambda n: abs(math.log(results.remaining(n) / PUBLISHED_SHARE))
        )
        trials = len(results.values("ticket", level, "iteration"))
        scale = self.scale
        ticket, *others = self._means(level)
        parts = [
            *filter(None, [self.doubt]),
            f"At {results.remaining(level):.1%} of its weights the ticket reaches its "
            f"early-stopping point after {ticket[1]:,.0f} iterations ("
            + ", ".join(f"{title} {steps:,.0f}" for title, steps, _ in others)
            + f") with a test {self.measure.name} of {scale.text(ticket[2])} ("
            + ", ".join(f"{title} {scale.text(value)}" for title, _, value in others)
            + f"), mean of {trials} trial{'s' if trials > 1 else ''}.",
            *self._judged(level),
            self._accurate_down_to(),
        ]
        return " ".join(parts)

    def _accurate_down_to(self) -> str:
        """A sentence on the least share of weights, with its interval."""
        if self.smallest is None:
            return "No ticket is as good as the full network."
        results, scale = self.results, self.scale
        level = next(n for n in results.levels if results.remaining(n) == self.smallest)
        above = results.difference("full", level, "value")
        side = "below" if self.measure.higher_is_better else "above"
        assert above is not None
        last = ", the last level tried," if level == results.levels[-1] else ""
        return (
            f"Down to {self.smallest:.1%} of the weights{last} the ticket's test "
            f"{self.measure.name} is on average at most {scale.step(self.tolerance)} {side} the "
            f"full network's ({scale.difference(above)})."
        )

    def _judged(self, level: int) -> list[str]:
        """A sentence on each verdict there is: what the ticket learns faster than."""
        sentences = {
            "holds": "It learns faster than {}.",
            "undecided": "These trials leave open whether it learns faster than {}.",
            "does not hold": "It does not learn faster than {}.",
        }
        found = self.results.comparisons(level)
        grouped = {
            holds: [
                f"{_NAMES[c.other]} ({difference(c.iterations, 0, unit='iterations')})"
                for c in found
                if c.faster == holds
            ]
            for holds in sentences
        }
        return [text.format(" or ".join(grouped[h])) for h, text in sentences.items() if grouped[h]]

    def _means(self, level: int) -> list[tuple[str, float, float]]:
        """(title, iteration, value) of the ticket first, then of the others that ran."""
        results, found = self.results, []
        for kind in ("ticket", "full", "fresh", "random"):
            steps, scores = (results.values(kind, level, m) for m in ("iteration", "value"))
            if steps:
                found.append((TITLES[kind], fmean(steps.values()), fmean(scores.values())))
        return found

    @property
    def meaning(self) -> str:
        """What a winning ticket is, and what it takes to be one."""
        return (
            "A winning ticket is a small part of the network, found by removing the smallest "
            "weights after training, that learns as well when it is trained alone from the values "
            "the full network started from. If its controls (the same connections drawn anew, "
            "other connections of the same number) learn more slowly or less well, it is the "
            "connections together with their start that matter; if they do not, the network can "
            "merely be made smaller."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A line for each network; shares in [0, 1]."""
        names = {f.name: f.name.replace("value", self.measure.name) for f in fields(Outcome)}
        del names["curve"]
        return [{name: getattr(o, key) for key, name in names.items()} for o in self.outcomes]

    def table(self) -> Table | None:
        """A line for each level: early-stopping iteration and measure, and who is slower."""
        results, name = self.results, self.measure.name
        columns = [
            "weights left",
            *(f"early stop, {TITLES[kind]}" for kind in _KINDS),
            *(f"{name}, {TITLES[kind]}" for kind in _KINDS),
            "ticket learns faster than",
        ]
        steps, value = self._cell("full", 0, "iteration"), self._cell("full", 0, "value")
        rows = [["100%", steps, "", "", value, "", "", "(the full network)"]]
        for level in results.levels:
            found = results.comparisons(level)
            rows.append(
                [
                    f"{results.remaining(level):.1%}",
                    *(self._cell(kind, level, "iteration") for kind in _KINDS),
                    *(self._cell(kind, level, "value") for kind in _KINDS),
                    "; ".join(f"{TITLES[c.other]}: {c.faster}" for c in found),
                ]
            )
        return Table(columns, rows)

    def _cell(self, kind: Kind, level: int, figure: Key) -> str:
        """Mean and spread of a figure; "" if there is none."""
        values = list(self.results.values(kind, level, figure).values())
        if not values:
            return ""
        found = summarize(values)
        if figure == "iteration":
            return mean_and_spread(found, 0)
        return self.scale.mean(found, unit=False)

    def draw(self, path: Path) -> None:
        """Early-stopping iteration and the measure there against the weights left, in percent."""
        panels: dict[Key, str] = {
            "iteration": "early-stopping iteration",
            "value": self.scale.label(f"test {self.measure.name} at early stopping"),
        }
        with drawing(path, figsize=(10, 4.6), ncols=2) as (figure, axes):
            for (figure_of, label), axis in zip(panels.items(), axes, strict=True):
                self._panel(axis, figure_of)
                axis.set(xlabel="weights left (%)", ylabel=label)
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
            figure.supxlabel(
                f"mean and one standard deviation of {self.trials} trials", fontsize="small"
            )

    def _panel(self, axis: Any, of: Key) -> None:
        results, factor = self.results, 1 if of == "iteration" else self.scale.factor
        full = list(results.values("full", 0, of).values())
        if full:
            mean, std = _center(full, factor)
            axis.axhline(mean, color=COLOURS[6], linestyle="--", linewidth=1, label=TITLES["full"])
            axis.axhspan(mean - std, mean + std, color=COLOURS[6], alpha=0.08, linewidth=0)
        for kind, colour, style in zip(_KINDS, COLOURS, ("-", "--", ":"), strict=False):
            levels = [n for n in results.levels if results.values(kind, n, of)]
            points = [_center(list(results.values(kind, n, of).values()), factor) for n in levels]
            if full and levels:
                levels, points = [0, *levels], [_center(full, factor), *points]
            x = [100 * results.remaining(n) for n in levels]
            means = [mean for mean, _ in points]
            axis.plot(x, means, style, color=colour, marker="o", markersize=4, label=TITLES[kind])
            low, high = ([m + sign * std for m, std in points] for sign in (-1, 1))
            axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        ticks = [100 * results.remaining(n) for n in [0, *results.levels]]
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks], rotation=45)
        axis.minorticks_off()
        axis.set_xlim(110, 0.9 * ticks[-1])
        axis.grid(alpha=0.3)

    def save_masks(self, folder: Path | str) -> None:
        """Write each ticket's mask, and what the tickets of a trial start from, as safetensors.

        Files mask-level-03-seed-0-HASH.safetensors, read by `load_masks`, and
        start-seed-0-HASH.safetensors, read by `load_starts`. What was saved there before is
        replaced.

        Args:
            folder: Made if missing.

        Raises:
            FileExistsError: Another process writes into the folder for more than ten seconds.
            ValueError: The finding was read from a record, which holds no masks.
        """
        if not self.masks:
            raise ValueError(
                "this finding has no masks: it was read from its record, or no ticket was trained"
            )
        write_masks(folder, self.masks, self.starts)


def _center(values: list[float], factor: float) -> tuple[float, float]:
    found = summarize(values)
    return factor * found.mean, factor * (found.std or 0.0)
