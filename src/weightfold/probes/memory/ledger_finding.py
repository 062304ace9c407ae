"""What `example_ledger` returns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import comb
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from weightfold.files import BRIEFLY, locked, replacing, write_csv
from weightfold.probes.finding import Finding
from weightfold.probes.memory.correctness import Correctness, Table, Totals
from weightfold.probes.memory.verdicts import Verdict
from weightfold.records import UNRECORDED
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import mean_and_spread
from weightfold.report.page import Section
from weightfold.report.page import Table as PageTable
from weightfold.report.statistics import judge_apart, summarize


@dataclass(frozen=True, kw_only=True)
class ExampleLedger(Finding):
    """Which examples are learnt when, on true data and on noise (Arpit et al. 2017, section 3.1).

    Attributes:
        totals: Of each condition, in the order asked for.
        network: Class and size of the network.
        data: Name of the data.
        correctness: Condition -> every example, epoch and run. Not part of the record; see `save`.
    """

    probe: ClassVar[str] = "example-ledger"
    answers: ClassVar[tuple[str, ...]] = ("verdicts",)
    totals: tuple[Totals, ...]
    network: str
    data: str
    correctness: Mapping[str, Correctness] = field(
        default_factory=dict, repr=False, compare=False, metadata=UNRECORDED
    )

    @property
    def headline(self) -> str:
        """How many examples are right from the first epoch on, in one run and in all."""
        parts = []
        for t in self.totals:
            sure = t.kept_in_all / t.examples
            always = mean_and_spread(summarize([100 * row[-1] for row in t.kept]), 1)
            parts.append(
                f"{t.title}: {always}% of a run's examples, and {sure:.1%} of them in all "
                f"{len(t.seeds)} runs"
            )
        return "Right after the first epoch and ever after are, on " + "; on ".join(parts) + "."

    @property
    def meaning(self) -> str:
        """What early examples tell."""
        return (
            "Examples that are right after the first epoch whatever the initial weights are easy: "
            "they follow patterns that the network finds at once. If examples were merely learnt "
            "by heart, each would be as hard as any other, and which ones are right early would be "
            "luck, as it nearly is for noise."
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What Arpit et al. claim, as far as these runs decide it."""
        return tuple(self._judged())

    def _judged(self) -> Iterator[Verdict]:
        several = [t for t in self.totals if len(t.seeds) > 1]
        for t in several:
            true = t.condition == "true"
            claim = "some examples are" if true else "no example is"
            yield Verdict(
                f"On {t.title}, {claim} right after the first epoch and ever after in every run",
                "holds" if (t.kept_in_all > 0) == true else "does not hold",
                f"{t.kept_in_all} of {t.examples:,}, {len(t.seeds)} runs",
            )
        true = [t for t in several if t.condition == "true"]
        for t in several:
            if t.condition != "true" and true:
                low, high = t.dispersion_interval()
                yield Verdict(
                    f"Examples differ more in how hard they are on true data than on {t.title}",
                    judge_apart(true[0].dispersion_interval(), (low, high)),
                    f"variance over examples {_dispersion(true[0])} times that of luck, against "
                    f"{t.dispersion:.1f} [{low:.1f}, {high:.1f}]",
                )

    def rows(self) -> list[dict[str, Any]]:
        """A line for each condition, run and epoch; shares of examples in [0, 1]."""
        return [
            {
                "condition": t.condition,
                "seed": seed,
                "epoch": epoch,
                "right": t.right[run][epoch],
                "right_since_epoch_1": t.kept[run][epoch - 1] if epoch else None,
                "first_learnt": t.learnt[run][epoch - 1] if epoch else None,
                "forgotten": t.forgotten[run][epoch - 1] if epoch else None,
            }
            for t in self.totals
            for run, seed in enumerate(t.seeds)
            for epoch in range(len(t.right[run]))
        ]

    def table(self) -> PageTable:
        """A line for each condition; mean and spread over runs, in percent of the examples."""
        columns = [
            "trained on",
            "right after epoch 1 (%)",
            "and ever after (%)",
            "in every run (%)",
            "right at the end (%)",
            "never right (%)",
            "forgotten, times an example",
            "variance against luck",
            "runs",
        ]
        rows = []
        for t in self.totals:

            def percent(values: list[float]) -> str:
                return mean_and_spread(summarize([100 * value for value in values]), 1)

            rows.append(
                [
                    t.title,
                    percent([row[1] for row in t.right]),
                    percent([row[-1] for row in t.kept]),
                    f"{100 * t.kept_in_all / t.examples:.1f}",
                    percent([row[-1] for row in t.right]),
                    percent([1 - sum(row) for row in t.learnt]),
                    mean_and_spread(summarize([sum(row) for row in t.forgotten]), 2),
                    _dispersion(t),
                    str(len(t.seeds)),
                ]
            )
        return PageTable(columns, rows)

    def section(self, folder: Path, title: str) -> Section:
        """As of every finding, with the verdicts below the notes."""
        section = super().section(folder, title)
        claims = [f"Claim. {verdict.text}" for verdict in self.verdicts]
        return replace(section, text="\n\n".join([section.text, *claims]))

    def draw(self, path: Path) -> None:
        """Examples right by epoch; and in how many runs each was right after the first epoch."""
        with drawing(path, figsize=(11, 4.8), ncols=2) as (figure, axes):
            for colour, t in zip(COLOURS, self.totals, strict=False):
                _band(axes[0], range(len(t.right[0])), t.right, colour, "--")
                _band(axes[0], range(1, len(t.right[0])), t.kept, colour, "-", t.title)
                _difficulties(axes[1], t, colour)
            axes[0].set(
                xlabel="epoch",
                ylabel="training examples (%)",
                ylim=(0, 102),
                title="right (dashed), right since epoch 1 (solid)",
            )
            axes[1].set(
                xlabel="training examples, the easiest first (%)",
                ylabel="runs right after epoch 1 (%)",
                ylim=(-2, 102),
                title="right after epoch 1 (dotted: if all were equally hard)",
            )
            for axis in axes:
                axis.grid(alpha=0.3)
            figure.legend(loc="outside lower center", ncols=5, frameon=False)
            runs = len(self.totals[0].seeds)
            figure.suptitle(f"{self.network} on {self.data}, {runs} run{'s' * (runs > 1)}")

    def save(self, folder: Path) -> None:
        """Write ledger.npz and examples.csv.

        The archive holds, for each condition, `Correctness.arrays` under names such as
        "random-labels/right"; numpy.load(path, allow_pickle=False) reads it. The CSV file has a
        line for each condition and example with its totals over the runs.

        Args:
            folder: Made if missing.

        Raises:
            ValueError: The finding was read from a record, which holds none.
        """
        if not self.correctness:
            raise ValueError(
                "this finding has no correctness of examples: it was read from its record"
            )
        arrays: dict[str, Any] = {
            f"{name}/{key}": array
            for name, each in self.correctness.items()
            for key, array in each.arrays().items()
        }
        rows = [row for each in self.correctness.values() for row in each.examples()]
        with locked(folder, BRIEFLY):
            with replacing(folder / "ledger.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
            write_csv(folder / "examples.csv", rows)


def _dispersion(totals: Totals) -> str:
    low, high = totals.dispersion_interval()
    return f"{totals.dispersion:.1f} [{low:.1f}, {high:.1f}]"


def _band(axis: Any, x: range, rows: Table, colour: str, style: str, label: str = "") -> None:
    points = [summarize([100 * value for value in column]) for column in zip(*rows, strict=True)]
    axis.plot(x, [p.mean for p in points], style, color=colour, label=label or None)
    low, high = ([p.mean + sign * (p.std or 0) for p in points] for sign in (-1, 1))
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _difficulties(axis: Any, totals: Totals, colour: str) -> None:
    """Examples in order of the runs in which they were right, beside equally hard ones."""
    runs, mean = len(totals.seeds), totals.chance_right
    luck = [comb(runs, k) * mean**k * (1 - mean) ** (runs - k) for k in range(runs + 1)]
    found = [count / totals.examples for count in totals.after_one]
    for shares, style in ((found, "-"), (luck, ":")):
        ends = np.cumsum(shares[::-1])
        x = np.stack([np.concatenate([[0.0], ends[:-1]]), ends], axis=1).ravel()
        y = np.repeat(np.arange(runs, -1, -1) / runs, 2)
        axis.plot(100 * x, 100 * y, style, color=colour)
