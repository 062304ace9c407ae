"""What an experiment came to, read from the folders of its runs or from its results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from weightfold.lab.experiment import NO_COLUMN, Column, Estimate, Experiment, Line, Quantity
from weightfold.lab.kept import Kept
from weightfold.lab.printed import Printed
from weightfold.lab.run import Run
from weightfold.report.statistics import Paired, paired, summarize


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run and what is known of it.

    Attributes:
        run: The run.
        record: A `History`, a `Finding`, ...; None if it is not finished, or its record is gone.
        sessions: When, with which versions and where it ran.
        counted: It was finished, and only the numbers of its line were kept.
    """

    run: Run
    record: Any
    sessions: tuple[Mapping[str, Any], ...] = ()
    counted: bool = False

    @property
    def seed(self) -> int:
        """Of the run; 0 where it is over several."""
        return getattr(self.run, "seed", 0)


@dataclass(frozen=True, eq=False)
class Results:
    """An experiment's outcomes in one preset.

    Attributes:
        experiment: What was run.
        preset: In which preset.
        outcomes: Label -> its runs' outcomes.
        column: The column it is compared with.
        kept: Numbers of lines whose records are gone; None: there are none.
    """

    experiment: Experiment
    preset: str
    outcomes: Mapping[str, tuple[Outcome, ...]]
    column: Column = NO_COLUMN
    kept: Kept | None = None

    @cached_property
    def missing(self) -> list[Run]:
        """Runs not finished yet."""
        found = (o for line in self.outcomes.values() for o in line)
        return [o.run for o in found if o.record is None and not o.counted]

    @cached_property
    def gone(self) -> set[str]:
        """Labels of lines with finished runs whose records are gone."""
        return {label for label, line in self.outcomes.items() if any(o.counted for o in line)}

    @property
    def complete(self) -> bool:
        """Whether the record of every finished run is at hand."""
        return not self.gone

    def line(self, label: str) -> Line:
        """A line by its label."""
        return self.experiment.line(label)

    def measure(self, key: str) -> Quantity:
        """A measure by its key."""
        return self.experiment.measure(key)

    def records(self, label: str) -> list[Any]:
        """What a line's finished runs recorded; none of a line that this preset does not run."""
        return [o.record for o in self.outcomes.get(label, ()) if o.record is not None]

    def run_of(self, label: str) -> Run | None:
        """The first run of a line; None if this preset does not run it."""
        outcomes = self.outcomes.get(label, ())
        return outcomes[0].run if outcomes else None

    def values(self, label: str, key: str) -> dict[int, float]:
        """Seed -> a measure of a line, for the seeds that have it; seed 0 alone if counted."""
        measure = self.measure(key)
        if measure.counted is not None:
            value = self._counted(label, measure)
            return {} if value is None else {0: value}
        if measure.of is None:
            return {}
        values = self._values(label, measure)
        if not measure.relative_to:
            return values
        base = self._values(measure.relative_to, measure)
        return {seed: v / b for seed, v in values.items() if (b := base.get(seed))}

    def _values(self, label: str, measure: Quantity) -> dict[int, float]:
        assert measure.of is not None
        found = {
            o.seed: measure.of(o.record)
            for o in self.outcomes.get(label, ())
            if o.record is not None
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def _counted(self, label: str, measure: Quantity) -> float | None:
        assert measure.counted is not None
        run = self.run_of(label)
        if run is None and measure.everywhere:
            run = next(iter(self.line(label).runs.values()), None)
        return None if run is None else measure.counted(run, self.column)

    def estimate(self, label: str, key: str) -> Estimate | None:
        """A measure of a line; None if it is not known."""
        measure, found = self.measure(key), None
        if measure.over is not None:
            records = self.records(label)
            found = measure.over(records) if records else None
        elif values := list(self.values(label, key).values()):
            summary = summarize(values)
            found = Estimate(summary.mean, summary.std, n=summary.n)
        if found is None and self.kept and label in self.gone:
            found = self.kept.estimates.get((label, key))
        return found

    def published(self, label: str, key: str) -> Printed | None:
        """What the paper prints."""
        line = self.line(label)
        if self.column == self.experiment.columns[0]:
            return line.published.get(key)
        return line.elsewhere.get(self.column.name, {}).get(key)

    def difference(self, a: str, b: str, *keys: str) -> Paired | None:
        """Line `a` minus `b`, paired by seed; of several measures, of their mean; None unknown."""
        return self.mean_difference([(a, b, key) for key in keys])

    def mean_difference(self, cells: Sequence[tuple[str, str, str]]) -> Paired | None:
        """Mean over (line a, line b, measure) of `a` minus `b`, paired by seed; None unknown."""
        ours = [self.values(a, key) for a, _, key in cells]
        others = [self.values(b, key) for _, b, key in cells]
        seeds = set.intersection(*({*one} for one in (*ours, *others))) if cells else set()
        if not seeds:
            return None
        order = sorted(seeds)
        return paired(
            [fmean(one[seed] for one in ours) for seed in order],
            [fmean(one[seed] for one in others) for seed in order],
        )


def read_results(
    experiment: Experiment,
    preset: str,
    runs: Path,
    *,
    data: str | None = None,
    seeds: int | None = None,
    kept: Kept | None = None,
) -> Results:
    """Read what is finished; runs nothing.

    Args:
        experiment: Whose runs.
        preset: One of its presets.
        runs: Folder of the runs.
        data: As for `Experiment.runs`.
        seeds: As for `Experiment.runs`.
        kept: What an earlier results.json has, for runs that are not in the folder.
    """
    found = {
        label: tuple(_outcome(label, run, runs, kept) for run in line)
        for label, line in experiment.runs(preset, data=data, seeds=seeds).items()
    }
    return Results(experiment, preset, found, experiment.column(data), kept)


def _outcome(label: str, run: Run, runs: Path, kept: Kept | None) -> Outcome:
    from weightfold.train.checkpoint import sessions_of

    record = run.finished(runs)
    if record is not None:
        return Outcome(run, record, tuple(sessions_of(runs / run.folder)))
    entry = kept.run(label, run) if kept else None
    if kept is None or entry is None or not entry.finished:
        return Outcome(run, None)
    if entry.record is None:
        return Outcome(run, None, entry.sessions, counted=True)
    try:
        record = run.from_json(entry.record)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{kept.path} is damaged: line {label!r}: {error!r}") from error
    return Outcome(run, record, entry.sessions)
