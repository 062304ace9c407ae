"""What an experiment's runs came to, read from their folders."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.lab.cell import Cell
from weightfold.lab.declare import Column, Experiment, Line, Measure, Number
from weightfold.report.statistics import Summary, summarize

if TYPE_CHECKING:
    from weightfold.train import History


@dataclass(frozen=True, eq=False)
class Outcome:
    """A cell and what is known of it.

    Attributes:
        cell: The cell.
        column: The data set of the table it stands in.
        history: Its epochs; None while it is not finished.
        sessions: When, with which versions and where it ran.
    """

    cell: Cell
    column: Column
    history: "History | None"
    sessions: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Results:
    """An experiment's outcomes in one preset.

    Attributes:
        experiment: What was run.
        preset: In which preset.
        column: The column it is compared with.
        outcomes: Label -> an outcome per seed.
    """

    experiment: Experiment
    preset: str
    column: Column
    outcomes: Mapping[str, tuple[Outcome, ...]]

    @cached_property
    def missing(self) -> list[Cell]:
        """Cells not finished yet."""
        return [o.cell for line in self.outcomes.values() for o in line if o.history is None]

    def measure(self, key: str) -> Measure:
        """A measure by its key."""
        return next(m for m in self.experiment.measures if m.key == key)

    def line(self, label: str) -> Line:
        """A line by its label."""
        return next(line for line in self.experiment.lines if line.label == label)

    def values(self, label: str, key: str) -> dict[int, float]:
        """Seed -> a measure of a line, for the seeds that have it; for one seed if counted."""
        measure = self.measure(key)
        if measure.counted:
            cell = self.experiment.cells("paper", seeds=1)[label][0]
            value = measure.of(Outcome(cell, self.column, None))
            return {} if value is None else {cell.seed: value}
        found = {o.cell.seed: measure.of(o) for o in self.outcomes.get(label, ())}
        values = {seed: value for seed, value in found.items() if value is not None}
        if not measure.relative_to:
            return values
        base = {o.cell.seed: measure.of(o) for o in self.outcomes.get(measure.relative_to, ())}
        return {seed: v / b for seed, v in values.items() if (b := base.get(seed))}

    def summary(self, label: str, key: str) -> Summary | None:
        """Mean and spread of a measure over seeds; None without values."""
        values = list(self.values(label, key).values())
        return summarize(values) if values else None

    def published(self, label: str, key: str) -> Number | None:
        """What the paper prints."""
        return self.line(label).published.get(self.column.name, {}).get(key)


def read_results(
    experiment: Experiment,
    preset: str,
    runs: Path,
    *,
    data: str | None = None,
    seeds: int | None = None,
) -> Results:
    """Read what is finished; trains nothing.

    Args:
        experiment: Whose cells.
        preset: One of its presets.
        runs: Folder of the runs.
        data: As for `Experiment.cells`.
        seeds: As for `Experiment.cells`.
    """
    column = experiment.column(data)
    cells = experiment.cells(preset, data=data, seeds=seeds)
    outcomes = {
        label: tuple(_read(cell, column, runs / cell.folder) for cell in line)
        for label, line in cells.items()
    }
    return Results(experiment, preset, column, outcomes)


def _read(cell: Cell, column: Column, folder: Path) -> Outcome:
    from weightfold.train import checkpoint

    history = checkpoint.finished(folder)
    if history is None:
        return Outcome(cell, column, None)
    return Outcome(cell, column, history, tuple(checkpoint.sessions_of(folder)))
