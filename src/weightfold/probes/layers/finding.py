"""What resetting layers found."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any, ClassVar, Literal

from weightfold.probes.finding import Finding
from weightfold.probes.layers.batch_norm import EXPLAINED
from weightfold.probes.layers.figures import draw_reset
from weightfold.probes.layers.measurements import DRAWN, Cell, Correlation, Distance, error_name
from weightfold.probes.layers.units import Unit
from weightfold.report.numbers import difference
from weightfold.report.page import Table
from weightfold.report.scale import Scale, margin
from weightfold.report.statistics import Paired, Summary, paired, summarize
from weightfold.tasks.measure import ACCURACY, Measure

CRITICAL = 0.05
"""A layer is critical if its initial weights raise the test error by more than this; ours. Of an
error that is no share it is a part of the trivial predictor's."""

Verdict = Literal["critical", "robust", "undecided"]


@dataclass(frozen=True, kw_only=True)
class LayerReset(Finding):
    """Test errors of trained networks with one layer set back (Zhang, Bengio and Singer 2022).

    Errors are by the task's first measure, see `weightfold.probes.layers.measurements.as_error`.

    Attributes:
        network: Class and size of the network.
        data: Name of the data.
        bn: What became of batch norm's running statistics, see `splice`.
        batch_norms: How many batch norms of the network keep running statistics.
        epochs: Epochs units were set back to, from 0; the last is the trained network's.
        seeds: Of the networks that were measured.
        units: What was set back together, see `layer_units`.
        cells: A test error for each unit, epoch (but the last) and seed, each draw of new weights,
            and each trained network.
        distances: One for each unit and seed.
        chance: Test error of the trivial predictor, such as that of always naming the class most
            frequent in training.
        recipe: How the networks were trained; None if checkpoints were given.
        measure: The task's first.
    """

    probe: ClassVar[str] = "layer-reset"
    per_seed: ClassVar[tuple[str, ...]] = ("seeds", "cells", "distances")
    network: str
    data: str
    bn: str
    batch_norms: int
    epochs: tuple[int, ...]
    seeds: tuple[int, ...]
    units: tuple[Unit, ...]
    cells: tuple[Cell, ...]
    distances: tuple[Distance, ...]
    chance: float
    recipe: Mapping[str, Any] | None
    measure: Measure = ACCURACY

    @property
    def error(self) -> str:
        """What errors are, in words."""
        return error_name(self.measure)

    @property
    def scale(self) -> Scale:
        """How errors are printed."""
        return Scale.of(self.measure, self.chance, digits=1)

    @property
    def bar(self) -> float:
        """By how much the error rises at least where a layer is critical."""
        return margin(self.measure, CRITICAL, self.chance)

    def errors(self, unit: str, source: int | str) -> list[float] | None:
        """Test error with `unit` set back to `source`, one for each seed; draws are averaged.

        The last epoch, or unit "", is the trained network. None where it could not be measured.
        """
        if source == self.epochs[-1]:
            unit = ""
        found = [c for c in self.cells if c.unit == unit and (not unit or c.source == source)]
        if not found:
            return None
        return [fmean(c.error for c in found if c.seed == seed) for seed in self.seeds]

    @property
    def trained(self) -> list[float]:
        """Test error of the trained networks, one for each seed, under the same policy."""
        return self.errors("", self.epochs[-1]) or []

    def increase(self, unit: str, source: int | str = 0) -> Paired:
        """How much the test error rises when `unit` is set back, paired by seeds.

        Raises:
            ValueError: It was not measured.
        """
        errors = self.errors(unit, source)
        if errors is None:
            raise ValueError(f"unit={unit!r}, source={source!r} was not measured")
        return paired(errors, self.trained)

    def verdict(self, unit: str) -> Verdict:
        """Whether the unit's initial weights raise the test error by more than `bar`.

        By the 95% interval over seeds, "undecided" if the bar lies in it; with one seed by its
        value alone.
        """
        rise = self.increase(unit)
        low, high = (rise.mean if end is None else end for end in (rise.low, rise.high))
        if low <= self.bar <= high and rise.n > 1:
            return "undecided"
        return "critical" if low > self.bar else "robust"

    def of_verdict(self, verdict: Verdict) -> tuple[str, ...]:
        """Names of the units of that verdict."""
        return tuple(unit.name for unit in self.units if self.verdict(unit.name) == verdict)

    @property
    def critical(self) -> tuple[str, ...]:
        """Names of the critical units."""
        return self.of_verdict("critical")

    @property
    def robustness(self) -> Paired:
        """Mean over units of the rise of the test error at epoch 0: lower is more robust.

        The definition is ours: the survey names no formula of its aggregate score.
        """
        resets = [self.errors(unit.name, 0) or [] for unit in self.units]
        return paired([fmean(row) for row in zip(*resets, strict=True)], self.trained)

    def distance(self, unit: str, norm: Literal["l2", "linf"]) -> Summary:
        """How far training took a unit, over seeds."""
        return summarize([getattr(d, norm) for d in self.distances if d.unit == unit])

    def correlation(self, norm: Literal["l2", "linf"]) -> Correlation | None:
        """Of distance and rise of the error at epoch 0, their means over seeds, over units.

        None with fewer than three units, or if one of the two is the same for all.

        Raises:
            ImportError: scipy is not installed.
        """
        try:
            from scipy.stats import spearmanr
        except ImportError as error:
            raise ImportError(
                "rank correlations need scipy: pip install 'weightfold[train]'"
            ) from error
        far = [self.distance(unit.name, norm).mean for unit in self.units]
        rise = [self.increase(unit.name).mean for unit in self.units]
        if len(self.units) < 3 or len(set(far)) == 1 or len(set(rise)) == 1:
            return None
        result = spearmanr(far, rise)
        return Correlation(float(result.statistic), float(result.pvalue), len(far))

    @property
    def policy(self) -> str:
        """What became of running statistics, for figures and pages."""
        if not self.batch_norms:
            return "no batch norm"
        return f"batch norm {self.bn}: {EXPLAINED[self.bn]}"

    @property
    def doubt(self) -> str:
        """That the network hardly learnt."""
        if not self.trained or fmean(self.trained) <= self.chance - self.bar:
            return ""
        return "The network hardly learned anything, so that little follows."

    @property
    def headline(self) -> str:
        """The answer in words."""
        critical, undecided, scale = self.critical, self.of_verdict("undecided"), self.scale
        several = len(self.seeds) > 1
        count = f"{len(self.seeds)} networks" if several else "1 network, no interval"
        are = "is" if len(critical) == 1 else "are"
        if critical:
            text = f"{len(critical)} of {len(self.units)} layers {are} critical: "
            text += f"{', '.join(critical)}."
        else:
            text = f"None of {len(self.units)} layers is {'surely ' if undecided else ''}critical."
        if undecided:
            text += f" The {len(self.seeds)} networks do not decide it for {', '.join(undecided)}."
        if self.doubt:
            text = f"{self.doubt} {text}"
        worst = max(self.units, key=lambda unit: self.increase(unit.name).mean).name
        return (
            f"{text} Critical is a layer whose initial weights in place of the trained ones raise "
            f"the test {self.error} by more than {scale.step(self.bar)}. {worst} costs the most, "
            f"{scale.difference(self.increase(worst))}, and the mean over layers is "
            f"{scale.difference(self.robustness)}. "
            f"{self.policy[0].upper()}{self.policy[1:]}. {count}, test {self.error} "
            f"{scale.mean(summarize(self.trained))} (chance {scale.text(self.chance)})."
        )

    @property
    def meaning(self) -> str:
        """What it means, in words."""
        text = (
            "After training, one layer at a time is given back the weights it had at an earlier "
            "epoch, or weights drawn anew, and the network is tested without further training. A "
            "layer that can go back to its initial weights at no cost has learnt little that the "
            "others need; one that cannot is critical."
        )
        sentences = []
        for norm, name in (("l2", "root mean square"), ("linf", "largest")):
            if found := self.correlation(norm):
                sentences.append(
                    f"{found.rho:+.2f} for the {name} change of a weight (p = {found.p:.2g})"
                )
        if sentences:
            text += (
                " How far training took a layer and what its reset costs have the rank "
                f"correlation {', '.join(sentences)}, over {len(self.units)} layers."
            )
        return text

    def rows(self) -> list[dict[str, Any]]:
        """A row for each cell."""
        name = f"test_{self.error.replace(' ', '')}"
        return [
            {
                "unit": cell.unit or "none",
                "epoch": cell.source,
                "seed": cell.seed,
                "draw": cell.draw,
                "bn": self.bn if self.batch_norms else "",
                name: cell.error,
                "test_loss": cell.loss,
            }
            for cell in self.cells
        ]

    def table(self) -> Table:
        """A row for each unit."""
        scale = self.scale
        rise = f"rise{f' ({scale.points})' if scale.points else ''}, 95% interval"
        columns = ["layer", "weights", scale.label(f"{self.error} at epoch 0"), rise]
        columns += [scale.label(f"{self.error} drawn anew")]
        columns += ["RMS change", "largest change", "verdict"]
        rows = []
        for unit in self.units:
            drawn = self.errors(unit.name, DRAWN)
            rows.append(
                [
                    " + ".join((unit.name, *unit.modules[1:])),
                    f"{unit.parameters:,}",
                    scale.mean(summarize(self.errors(unit.name, 0) or []), unit=False),
                    difference(self.increase(unit.name), scale.digits, factor=scale.factor),
                    "" if drawn is None else scale.mean(summarize(drawn), unit=False),
                    f"{self.distance(unit.name, 'l2').mean:.2g}",
                    f"{self.distance(unit.name, 'linf').mean:.2g}",
                    self.verdict(unit.name),
                ]
            )
        return Table(columns, rows)

    def draw(self, path: Any) -> None:
        """Heatmap of units by epochs, and distance against rise."""
        draw_reset(self, path)


def finite(value: float | None) -> float | None:
    """The value, None if it is NaN or infinite, which JSON has no word for."""
    return value if value is not None and isfinite(value) else None
