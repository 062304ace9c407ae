"""What `lottery_ticket` returns."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from torch import Tensor

from weightfold.probes.finding import Finding
from weightfold.probes.tickets.masks_file import Masks, write_masks
from weightfold.probes.tickets.outcomes import TITLES, Kind, Measure, Outcome, Outcomes
from weightfold.records import UNRECORDED
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import difference, mean_and_spread
from weightfold.report.page import Table
from weightfold.report.statistics import summarize

PUBLISHED_SHARE = 0.211
"""Of the LeNet ticket that learns fastest (Frankle and Carbin 2019, Figure 3); the headline is of
the level nearest to it, whatever came out."""

TOLERANCE = 0.005
"""A ticket whose mean test accuracy is at most so much lower is as accurate as the full network."""

LEARNT = 0.05
"""A full network must be more accurate than chance by more than this for its tickets to tell
anything; ours."""

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
        chance: Test accuracy of always naming the class most frequent in training.
        masks: (level, seed) -> tensor name -> bool mask of the ticket, True where a weight
            survives. Not part of the record; see `save_masks`.
        starts: Seed -> tensor name -> what the trial's tickets start from: all parameters and
            buffers, initial or after `rewind` steps. Not part of the record.
    """

    probe: ClassVar[str] = "lottery-ticket"
    outcomes: tuple[Outcome, ...]
    trials: int
    weights: int
    chance: float = 0.0
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
    def smallest(self) -> float | None:
        """Least share of weights at which a ticket is as accurate as the full network.

        Its mean test accuracy at early stopping is at most `TOLERANCE` below, at this level and
        every level before; None if that is so at no level.
        """
        found = None
        for level in self.results.levels:
            difference = self.results.difference("full", level, "accuracy")
            if difference is None or difference.mean < -TOLERANCE:
                break
            found = self.results.remaining(level)
        return found

    @property
    def doubt(self) -> str:
        """That the full network hardly learnt, or that a control does better than the ticket."""
        results, full = self.results, self.results.values("full", 0, "accuracy")
        if full and fmean(full.values()) <= self.chance + LEARNT:
            return (
                f"The full network hardly learned anything (test accuracy "
                f"{fmean(full.values()):.1%}, chance {self.chance:.1%}), so that nothing follows "
                "on what can be pruned."
            )
        shares = {results.remaining(n): n for n in results.levels}
        level = shares.get(self.smallest) if self.smallest else max(results.levels, default=None)
        if level is None:
            return ""
        controls: tuple[Kind, ...] = ("random", "fresh")
        found = {k: results.difference(k, level, "accuracy") for k in controls}
        better = [f"{_NAMES[k]} ({difference(d.negated, unit='points', factor=100)})"
                  for k, d in found.items() if d is not None and d.mean < 0]  # fmt: skip
        if not better:
            return ""
        return (
            f"At {results.remaining(level):.1%} of the weights the ticket is no winning one: "
            f"{' and '.join(better)} {'are' if len(better) > 1 else 'is'} more accurate on average."
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
        ticket, *others = self._means(level)
        parts = [
            *filter(None, [self.doubt]),
            f"At {results.remaining(level):.1%} of its weights the ticket reaches its "
            f"early-stopping point after {ticket[1]:,.0f} iterations ("
            + ", ".join(f"{title} {steps:,.0f}" for title, steps, _ in others)
            + f") with a test accuracy of {ticket[2]:.2%} ("
            + ", ".join(f"{title} {accuracy:.2%}" for title, _, accuracy in others)
            + f"), mean of {trials} trial{'s' if trials > 1 else ''}.",
            *self._judged(level),
            self._accurate_down_to(),
        ]
        return " ".join(parts)

    def _accurate_down_to(self) -> str:
        """A sentence on the least share of weights, with its interval."""
        if self.smallest is None:
            return "No ticket is as accurate as the full network."
        results = self.results
        level = next(n for n in results.levels if results.remaining(n) == self.smallest)
        above = results.difference("full", level, "accuracy")
        assert above is not None
        last = ", the last level tried," if level == results.levels[-1] else ""
        return (
            f"Down to {self.smallest:.1%} of the weights{last} the ticket's test accuracy is on "
            f"average at most {100 * TOLERANCE:g} points below the full network's "
            f"({difference(above, unit='points', factor=100)})."
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
        """(title, iteration, accuracy) of the ticket first, then of the others that ran."""
        results, found = self.results, []
        for kind in ("ticket", "full", "fresh", "random"):
            steps, scores = (results.values(kind, level, m) for m in ("iteration", "accuracy"))
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
        return [
            {name: value for name, value in asdict(o).items() if name != "curve"}
            for o in self.outcomes
        ]

    def table(self) -> Table | None:
        """A line for each level: early-stopping iteration and accuracy, and who is slower."""
        results = self.results
        columns = [
            "weights left",
            *(f"early stop, {TITLES[kind]}" for kind in _KINDS),
            *(f"accuracy, {TITLES[kind]}" for kind in _KINDS),
            "ticket learns faster than",
        ]
        steps, accuracy = (
            _spread(results.values("full", 0, m), m) for m in ("iteration", "accuracy")
        )
        rows = [["100%", steps, "", "", accuracy, "", "", "(the full network)"]]
        for level in results.levels:
            found = results.comparisons(level)
            rows.append(
                [
                    f"{results.remaining(level):.1%}",
                    *(_spread(results.values(k, level, "iteration"), "iteration") for k in _KINDS),
                    *(_spread(results.values(k, level, "accuracy"), "accuracy") for k in _KINDS),
                    "; ".join(f"{TITLES[c.other]}: {c.faster}" for c in found),
                ]
            )
        return Table(columns, rows)

    def draw(self, path: Path) -> None:
        """Early-stopping iteration and accuracy there against the weights left, in percent."""
        panels: dict[Measure, str] = {
            "iteration": "early-stopping iteration",
            "accuracy": "test accuracy at early stopping (%)",
        }
        with drawing(path, figsize=(10, 4.6), ncols=2) as (figure, axes):
            for (measure, label), axis in zip(panels.items(), axes, strict=True):
                self._panel(axis, measure)
                axis.set(xlabel="weights left (%)", ylabel=label)
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
            figure.supxlabel(
                f"mean and one standard deviation of {self.trials} trials", fontsize="small"
            )

    def _panel(self, axis: Any, measure: Measure) -> None:
        results, factor = self.results, 1 if measure == "iteration" else 100
        full = list(results.values("full", 0, measure).values())
        if full:
            mean, std = _center(full, factor)
            axis.axhline(mean, color=COLOURS[6], linestyle="--", linewidth=1, label=TITLES["full"])
            axis.axhspan(mean - std, mean + std, color=COLOURS[6], alpha=0.08, linewidth=0)
        for kind, colour, style in zip(_KINDS, COLOURS, ("-", "--", ":"), strict=False):
            levels = [n for n in results.levels if results.values(kind, n, measure)]
            points = [
                _center(list(results.values(kind, n, measure).values()), factor) for n in levels
            ]
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


def _spread(values: Mapping[int, float], measure: Measure) -> str:
    if not values:
        return ""
    found = summarize(list(values.values()))
    if measure == "iteration":
        return mean_and_spread(found, 0)
    return mean_and_spread(found, factor=100)
