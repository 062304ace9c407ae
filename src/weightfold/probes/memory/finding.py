"""What `memorization` returns."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.probes.memory.figures import draw_fits
from weightfold.probes.memory.fits import Fit, Fits
from weightfold.probes.memory.verdicts import RANDOM, TRUE, Verdict, verdicts
from weightfold.report.numbers import mean_and_spread
from weightfold.report.page import Section, Table
from weightfold.report.statistics import summarize


@dataclass(frozen=True, kw_only=True)
class Memorization(Finding):
    """How networks fit true data and noise (Zhang et al. 2017, Arpit et al. 2017).

    Attributes:
        fits: Every network that came to its end.
        network: Class and size of the network.
        data: Name of the data.
        chance: Accuracy of guessing among all classes.
        epochs: Passes after which a network was given up.
        radius: Of the box in which critical samples were searched; None: they were not.
    """

    probe: ClassVar[str] = "memorization"
    per_seed: ClassVar[tuple[str, ...]] = ("fits",)
    answers: ClassVar[tuple[str, ...]] = ("verdicts",)
    fits: tuple[Fit, ...]
    network: str
    data: str
    chance: float
    epochs: int
    radius: float | None

    @cached_property
    def results(self) -> Fits:
        """The networks, by line and seed."""
        return Fits(self.fits)

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The papers' claims, as far as these networks decide them."""
        return tuple(verdicts(self.results, self.chance))

    @property
    def headline(self) -> str:
        """Whether random labels are fitted, when, and what the network then knows."""
        results = self.results
        line = RANDOM if results.of(RANDOM) else results.lines[0]
        fits = list(results.of(line).values())
        seeds = f"{len(fits)} seed{'s' if len(fits) > 1 else ''}"
        examples = f"{fits[0].examples:,} examples under the condition {line.title!r}"
        if results.reached(line):
            text = (
                f"The network learns {examples} by heart: no training error after "
                f"{results.epochs(line)} epochs ({seeds})"
            )
        else:
            text = (
                f"The network does not learn {examples} by heart in {self.epochs} epochs: training "
                f"accuracy {results.accuracy(line, 'train')}% ({seeds})"
            )
        if line != TRUE and results.of(TRUE):
            text += f", with true data after {results.epochs(TRUE)}"
        compared = f"chance {self.chance:.1%}"
        if line != TRUE and results.of(TRUE):
            compared += f", trained on true data {results.accuracy(TRUE, 'test')}%"
        return f"{text}; test accuracy then {results.accuracy(line, 'test')}% ({compared})."

    @property
    def meaning(self) -> str:
        """What fitting noise tells."""
        return (
            "Random labels have nothing to do with the inputs, so a network that fits them has "
            "learnt them by heart. One that can do so is large enough to memorize its training "
            "set: if it does well on true data, the reason is not that it could do nothing else, "
            "and its training error alone says nothing of what it has understood. How much later "
            "noise is fitted than true data shows how much the data helps."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A line for each network; accuracies and fractions in [0, 1]."""
        return [
            asdict(fit.line)
            | {name: v for name, v in asdict(fit).items() if name not in ("line", "curve")}
            for fit in self.fits
        ]

    def table(self) -> Table:
        """A line for each condition: how much is noise, epochs to zero error, accuracies."""
        results = self.results
        columns = [
            "trained on",
            "labels changed (%)",
            "inputs changed (%)",
            "epochs to zero training error",
            "training accuracy (%)",
            "test accuracy (%)",
            *(["critical test examples (%)"] if self.radius is not None else []),
            "seeds",
        ]
        rows = []
        for line in results.lines:
            fits = list(results.of(line).values())
            critical = [100 * fit.critical for fit in fits if fit.critical is not None]
            rows.append(
                [
                    line.title,
                    f"{100 * fmean(f.labels_changed / f.examples for f in fits):.1f}",
                    f"{100 * fmean(f.inputs_changed / f.examples for f in fits):.1f}",
                    results.epochs(line),
                    results.accuracy(line, "train"),
                    results.accuracy(line, "test"),
                    *([mean_and_spread(summarize(critical), 1)] if self.radius is not None else []),
                    str(len(fits)),
                ]
            )
        return Table(columns, rows)

    def section(self, folder: Path, title: str) -> Section:
        """As of every finding, with the verdicts below the notes."""
        section = super().section(folder, title)
        claims = [f"Claim. {verdict.text}" for verdict in self.verdicts]
        return replace(section, text="\n\n".join([section.text, *claims]))

    def draw(self, path: Path) -> None:
        """Training error by epoch; epochs to zero error and test accuracy by share of noise."""
        seeds = len({fit.seed for fit in self.fits})
        over = f"mean ± std of {seeds} seeds" if seeds > 1 else "one seed"
        title = f"{self.network} on {self.data}, {over}"
        draw_fits(self.results, path, title=title, chance=self.chance)
