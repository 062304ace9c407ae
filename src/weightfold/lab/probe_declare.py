"""What an experiment of probes is: published numbers, and ours beside them. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from weightfold.lab.cell import Cell
from weightfold.lab.claims import Claim
from weightfold.lab.declare import PRESETS
from weightfold.lab.probe_cell import ProbeCell

if TYPE_CHECKING:
    from weightfold.lab.probe_results import ProbeResults
    from weightfold.report.statistics import Paired

Bound = Literal["", ">", "<"]
"""What a number is a bound of: "" if it is the value itself."""


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: In the measure's unit.
        low: Lower end of the 95% interval over seeds; None with one seed.
        high: Upper end.
        n: Seeds it is from.
        bound: ">": the value was not reached, it is above `value`; "<": below.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    bound: Bound = ""

    @classmethod
    def of(cls, found: "Paired") -> "Estimate":
        """The mean with its interval."""
        return cls(found.mean, found.low, found.high, found.n)


@dataclass(frozen=True)
class Printed:
    """A published number.

    Attributes:
        value: In the measure's unit.
        source: Where it is printed, "Table 1".
        bound: As of `Estimate`.
    """

    value: float
    source: str = ""
    bound: Bound = ""


@dataclass(frozen=True)
class ProbeMeasure:
    """A figure of a line.

    Attributes:
        key: In CSV and JSON, and in `ProbeLine.published`.
        title: With its unit.
        of: Name of a probe, "" for networks trained plainly -> what gives it from the records of a
            line's finished cells, at least one; None if they do not tell it. Lines of other probes
            have not got it.
        digits: Shown after the decimal point.
        relative: Ours is compared with the published number by their ratio; else by the difference.
    """

    key: str
    title: str
    of: Mapping[str, Callable[[Sequence[Any]], Estimate | None]]
    digits: int = 0
    relative: bool = False


@dataclass(frozen=True)
class ProbeLine:
    """A line of the table: one probe of one network and data, or networks trained plainly.

    Attributes:
        label: Unique in the experiment.
        cells: Preset -> what is run there; each seed as `over` says.
        published: Measure -> the paper's number.
        note: What differs from the paper, or why the numbers do.
        not_run: Why it has no cells; its published numbers are listed.
        seeds: At most so many, where that is fewer than the preset's; not of the preset paper.
    """

    label: str
    cells: Mapping[str, ProbeCell | Cell] = field(default_factory=dict)
    published: Mapping[str, Printed] = field(default_factory=dict)
    note: str = ""
    not_run: str = ""
    seeds: int | None = None


@dataclass(frozen=True)
class ProbePreset:
    """One size in which an experiment is run.

    Attributes:
        seeds: How many: 0, 1, 2, ...
        differs: How this differs from what the paper did, or is known to have done.
    """

    seeds: int
    differs: str


@dataclass(frozen=True)
class ProbeExperiment:
    """What papers found with a probe, and what we find.

    Attributes:
        name: "li2018-intrinsic".
        paper: Authors, year, title.
        title: What it shows.
        measures: What is reported.
        lines: From top to bottom.
        presets: Preset -> its size, one for each of `PRESETS`.
        claims: What the paper says of it.
        notes: What is said with the numbers.
        draw: Writes the figure that stands above all, a PNG file; None: that of
            `weightfold.lab.probe_figures.draw_first_measure`.

    Raises:
        ValueError: Labels repeat, or something refers to a measure or preset that the experiment
            has not, or a line has neither cells nor a reason for that.
    """

    name: str
    paper: str
    title: str
    measures: tuple[ProbeMeasure, ...]
    lines: tuple[ProbeLine, ...]
    presets: Mapping[str, ProbePreset]
    claims: "tuple[Claim[ProbeResults], ...]" = ()
    notes: str = ""
    draw: "Callable[[ProbeResults, Path], None] | None" = None

    def __post_init__(self) -> None:
        labels = [line.label for line in self.lines]
        keys = {measure.key for measure in self.measures}
        if len({*labels}) < len(labels) or {*self.presets} != {*PRESETS}:
            raise ValueError(f"experiment {self.name}: labels repeat, or presets are not {PRESETS}")
        for line in self.lines:
            if unknown := {*line.published} - keys | {*line.cells} - {*PRESETS}:
                raise ValueError(
                    f"experiment {self.name}, line {line.label!r}: {sorted(unknown)[0]!r} is "
                    "neither a measure nor a preset"
                )
            if bool(line.cells) == bool(line.not_run):
                raise ValueError(
                    f"experiment {self.name}, line {line.label!r}: give cells, or say in not_run "
                    "why there are none"
                )

    @property
    def remarks(self) -> list[str]:
        """What is not run, and why."""
        return [f"{line.label}: not run, {line.not_run}" for line in self.lines if line.not_run]

    def cells(
        self, preset: str, *, data: str | None = None, seeds: int | None = None
    ) -> dict[str, tuple[ProbeCell | Cell, ...]]:
        """What a preset runs.

        Args:
            preset: One of `PRESETS`.
            data: None; lines have data of their own.
            seeds: How many seeds instead of the preset's; lines with few keep theirs if fewer.

        Returns:
            Label -> its cells.

        Raises:
            ValueError: There is no such preset, `data` is given, or `seeds` is below 1.
        """
        if preset not in self.presets:
            raise ValueError(f"preset={preset!r}; choose {', '.join(self.presets)}")
        if data is not None:
            raise ValueError(f"data={data!r}: lines of {self.name} have their own; leave data out")
        if seeds is not None and seeds < 1:
            raise ValueError(f"seeds={seeds}: give how many, at least 1")
        count = seeds or self.presets[preset].seeds
        return {
            line.label: line.cells[preset].over(
                count if preset == "paper" else min(count, line.seeds or count)
            )
            for line in self.lines
            if preset in line.cells
        }

    def write(self, preset: str, runs: Path, folder: Path, *, asked: Mapping[str, Any]) -> Path:
        """Write results.csv, results.json, figures and the page from what is finished."""
        from weightfold.lab.probe_page import write_results
        from weightfold.lab.probe_results import read_results

        results = read_results(self, preset, runs, data=asked["data"], seeds=asked["seeds"])
        return write_results(results, folder, asked=asked)
