"""What an experiment of probes came to, read from the folders of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightfold.lab.cell import Cell
from weightfold.lab.probe_cell import ProbeCell
from weightfold.lab.probe_declare import Estimate, Printed, ProbeExperiment, ProbeLine, ProbeMeasure


@dataclass(frozen=True, eq=False)
class ProbeOutcome:
    """A cell and what is known of it.

    Attributes:
        cell: The cell.
        record: A `Finding`, or a `History` of a network trained plainly; None: not finished.
        sessions: When, with which versions and where it ran.
    """

    cell: ProbeCell | Cell
    record: Any
    sessions: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class ProbeResults:
    """An experiment's outcomes in one preset.

    Attributes:
        experiment: What was run.
        preset: In which preset.
        outcomes: Label -> its cells' outcomes.
    """

    experiment: ProbeExperiment
    preset: str
    outcomes: Mapping[str, tuple[ProbeOutcome, ...]]

    @property
    def missing(self) -> list[ProbeCell | Cell]:
        """Cells not finished yet."""
        return [o.cell for line in self.outcomes.values() for o in line if o.record is None]

    def line(self, label: str) -> ProbeLine:
        """A line by its label."""
        return next(line for line in self.experiment.lines if line.label == label)

    def measure(self, key: str) -> ProbeMeasure:
        """A measure by its key."""
        return next(measure for measure in self.experiment.measures if measure.key == key)

    def records(self, label: str) -> list[Any]:
        """What a line's finished cells recorded; none of a line that this preset does not run."""
        return [o.record for o in self.outcomes.get(label, ()) if o.record is not None]

    def estimate(self, label: str, key: str) -> Estimate | None:
        """A measure of a line; None if it is not known."""
        records = self.records(label)
        of = self.measure(key).of.get(getattr(records[0], "probe", "")) if records else None
        return None if of is None else of(records)

    def published(self, label: str, key: str) -> Printed | None:
        """What the paper prints."""
        return self.line(label).published.get(key)


def read_results(
    experiment: ProbeExperiment,
    preset: str,
    runs: Path,
    *,
    data: str | None = None,
    seeds: int | None = None,
) -> ProbeResults:
    """Read what is finished; runs nothing.

    Args:
        experiment: Whose cells.
        preset: One of its presets.
        runs: Folder of the runs.
        data: As for `ProbeExperiment.cells`.
        seeds: As for `ProbeExperiment.cells`.
    """
    cells = experiment.cells(preset, data=data, seeds=seeds)
    outcomes = {label: tuple(_read(cell, runs) for cell in line) for label, line in cells.items()}
    return ProbeResults(experiment, preset, outcomes)


def _read(cell: ProbeCell | Cell, runs: Path) -> ProbeOutcome:
    from weightfold.train.checkpoint import sessions_of

    record = cell.finished(runs)
    if record is None:
        return ProbeOutcome(cell, None)
    return ProbeOutcome(cell, record, tuple(sessions_of(runs / cell.folder)))
