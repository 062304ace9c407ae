"""What an experiment is: lines that are run, measures, printed numbers and claims, declared.

Imports no torch.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.lab.printed import Bound, Printed
from weightfold.lab.run import Run

if TYPE_CHECKING:
    from weightfold.report.page import Section

SHARE = (0.0, 100.0)
"""`Quantity.within` of shares in percent."""

PRESETS = ("smoke", "cpu", "paper")
"""Of the experiments of papers: seconds; hours on two cores; the paper's own settings."""


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: In the measure's unit.
        std: Sample standard deviation over seeds; None with one seed, or where the interval says
            more.
        low: Lower end of the 95% interval over seeds; None if there is none.
        high: Upper end.
        n: Seeds it is from.
        bound: ">": the value was not reached, it is above `value`; "<": below.
    """

    value: float
    std: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 1
    bound: Bound = ""

    @classmethod
    def of(cls, found: Any) -> "Estimate":
        """The mean of a `weightfold.report.statistics.Paired` with its interval."""
        return cls(found.mean, None, found.low, found.high, found.n)


@dataclass(frozen=True)
class Column:
    """A data set of the paper's table.

    Attributes:
        name: Data spec to load it by; `Experiment.runs` may be given another.
        title: As the paper calls it.
        classes: How many.
        image_shape: (channels, height, width).
        missing: Why it is not run by default, and how a user runs it; "" for the default column.
    """

    name: str = ""
    title: str = ""
    classes: int = 0
    image_shape: tuple[int, int, int] = (0, 0, 0)
    missing: str = ""


NO_COLUMN = Column()
"""Of experiments whose lines have data of their own."""


@dataclass(frozen=True)
class Quantity:
    """A figure of a line, got in one of three ways.

    Attributes:
        key: In CSV and JSON, and in `Line.published`.
        title: With its unit.
        of: From the record of one run, a value of its seed; None if the record does not tell it.
        over: From the records of a line's finished runs, at least one.
        counted: From a run's settings, before anything is trained; it has no spread.
        digits: Shown after the decimal point.
        relative_to: Label of the line by whose value, of the same seed, it is divided; "" for none.
        ratio: Ours is compared with the published number by their ratio, on a log axis; else by
            the difference.
        within: What its values cannot leave, (0, 100) for a share in percent: intervals are cut.
        everywhere: What is counted is counted of lines too that a preset does not run.
        section: Heading of the table it stands in; "": the results; None: it is only in CSV and
            JSON.
    """

    key: str
    title: str
    of: Callable[[Any], float | None] | None = None
    over: Callable[[Sequence[Any]], Estimate | None] | None = None
    counted: Callable[[Any, Column], float | None] | None = None
    digits: int = 2
    relative_to: str = ""
    ratio: bool = False
    within: tuple[float, float] | None = None
    everywhere: bool = False
    section: str | None = ""


@dataclass(frozen=True)
class Line:
    """A line of the table: runs that differ in the seed alone.

    Attributes:
        label: Unique in the experiment.
        runs: Preset -> what is run there, over the seeds.
        published: Key of a quantity -> the paper's number in the first column.
        elsewhere: Further column -> measure -> the paper's number.
        note: What differs from the paper, or why the numbers do.
        not_run: Why it has no runs; its published numbers are listed.
        seeds: At most so many, where that is fewer than the preset's; not of the preset paper.
        at: Its place on the experiment's axis; None: it has none.
        series: On the axis, the curves that it belongs to.
    """

    label: str
    runs: Mapping[str, Run] = field(default_factory=dict)
    published: Mapping[str, Printed] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, Printed]] = field(default_factory=dict)
    note: str = ""
    not_run: str = ""
    seeds: int | None = None
    at: float | None = None
    series: tuple[str, ...] = ("",)

    @property
    def printed(self) -> list[Printed]:
        """Every published number of it."""
        return [n for of in (self.published, *self.elsewhere.values()) for n in of.values()]


@dataclass(frozen=True)
class Axis:
    """A numeric axis along which lines lie: the first measures are drawn against it.

    Attributes:
        title: With its unit.
        log: Whether it is logarithmic.
        measures: Keys of those drawn, a panel each; none: the first measure.
    """

    title: str
    log: bool = False
    measures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preset:
    """One size in which an experiment is run.

    Attributes:
        seeds: How many, 0, 1, 2, ...; or which.
        differs: How this differs from what the paper did, or is known to have done.
        data: Data spec that the user's takes the place of; "": lines have data of their own.
        lines: Labels of the lines run; None: all that have runs of this preset.
        comparable: Whether its numbers are to be like the paper's; else only their order is.
        needs: What the user must have for it, "images in the data folder"; "" for nothing.
    """

    seeds: int | Sequence[int]
    differs: str = ""
    data: str = ""
    lines: tuple[str, ...] | None = None
    comparable: bool = True
    needs: str = ""

    @property
    def chosen(self) -> Sequence[int]:
        """The seeds."""
        return range(self.seeds) if isinstance(self.seeds, int) else self.seeds


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Attributes:
        text: In our words.
        check: Judges it by an experiment's results, see `weightfold.lab.claims`.
        printed: Published numbers it refers to.
    """

    text: str
    check: Callable[[Any], Any]
    printed: tuple[Printed, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A further figure of an experiment's page.

    Attributes:
        name: Of its file, without the ending.
        title: Heading.
        draw: Writes a PNG file from the results; gives whether there was anything to draw.
        text: Below the heading.
    """

    name: str
    title: str
    draw: Callable[[Any, Path], bool]
    text: str = ""


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper, or a comparison made on the fly.

    Attributes:
        name: "guo2020-table9".
        paper: Authors, year, title; "" for none.
        title: What it shows.
        measures: What is reported; the first one is drawn.
        lines: From top to bottom.
        presets: Name -> size in which it is run.
        claims: What the paper says of it.
        notes: What is said with the numbers.
        columns: Data sets of the paper's table; the first is the default.
        baseline: Label of the line with which all others are compared by the first measure; "" for
            none.
        axis: Along which lines lie; None: they are no numbers.
        draw: Writes the figure beside the table, a PNG file; None: the axis, else a dot a line.
        figures: Further figures.
        sections: Further parts of the page, from the results.
        answer: Stands first on the page; None: what the claims came to.

    Raises:
        ValueError: Labels repeat, or something refers to a line, measure, column or preset that
            the experiment has not, or a line has neither runs nor a reason for that.
    """

    name: str
    paper: str
    title: str
    measures: tuple[Quantity, ...]
    lines: tuple[Line, ...]
    presets: Mapping[str, Preset]
    claims: tuple[Claim, ...] = ()
    notes: str = ""
    columns: tuple[Column, ...] = (NO_COLUMN,)
    baseline: str = ""
    axis: Axis | None = None
    draw: Callable[[Any, Path], None] | None = None
    figures: tuple[Figure, ...] = ()
    sections: "Callable[[Any, Path], Iterable[Section]] | None" = None
    answer: "Callable[[Any], Section] | None" = None

    def __post_init__(self) -> None:
        labels = [line.label for line in self.lines]
        keys = [measure.key for measure in self.measures]
        self._known("label", [x for x in labels if labels.count(x) > 1], ())
        self._known("measure", [x for x in keys if keys.count(x) > 1], ())
        self._known("line", [m.relative_to for m in self.measures if m.relative_to], labels)
        self._known("line", [self.baseline] if self.baseline else [], labels)
        self._known("measure", self.axis.measures if self.axis else (), keys)
        for preset in self.presets.values():
            self._known("line", preset.lines or (), labels)
        for line in self.lines:
            self._known("preset", line.runs, self.presets)
            self._known("column", line.elsewhere, [c.name for c in self.columns[1:]])
            for published in (line.published, *line.elsewhere.values()):
                self._known("measure", published, keys)
            if bool(line.runs) == bool(line.not_run):
                raise ValueError(
                    f"experiment {self.name}, line {line.label!r}: give runs, or say in not_run "
                    "why there are none"
                )

    def _known(self, what: str, names: Iterable[str], known: Collection[str]) -> None:
        unknown = sorted(name for name in names if name not in known)
        if unknown:
            raise ValueError(
                f"experiment {self.name}: {what} {unknown[0]!r} is unknown or repeated"
            )

    @property
    def remarks(self) -> list[str]:
        """What is not run by default, and why."""
        columns = [f"{column.title}: {column.missing}" for column in self.columns if column.missing]
        lines = [f"{line.label}: not run, {line.not_run}" for line in self.lines if line.not_run]
        needs = [f"{name}: needs {size.needs}" for name, size in self.presets.items() if size.needs]
        return columns + lines + needs

    @property
    def printed(self) -> set[str]:
        """The printed numbers that lines and claims refer to, as in `Printed.cells`."""
        numbers = [number for line in self.lines for number in line.printed]
        numbers += [number for claim in self.claims for number in claim.printed]
        return {cell for number in numbers for cell in number.cells}

    def line(self, label: str) -> Line:
        """A line by its label."""
        return next(line for line in self.lines if line.label == label)

    def measure(self, key: str) -> Quantity:
        """A measure by its key."""
        return next(measure for measure in self.measures if measure.key == key)

    def column(self, data: str | None) -> Column:
        """The column that a data spec is compared with: that of its name, else the first."""
        name = (data or "").partition(",")[0]
        return next((c for c in self.columns if c.name == name), self.columns[0])

    def lines_of(self, preset: str) -> tuple[Line, ...]:
        """The lines a preset runs.

        Raises:
            ValueError: There is no such preset.
        """
        if preset not in self.presets:
            raise ValueError(f"preset={preset!r}; choose {', '.join(self.presets)}")
        chosen = self.presets[preset].lines
        lines = (line for line in self.lines if preset in line.runs)
        return tuple(line for line in lines if chosen is None or line.label in chosen)

    def runs(
        self, preset: str, *, data: str | None = None, seeds: int | None = None
    ) -> dict[str, tuple[Run, ...]]:
        """What a preset runs.

        Args:
            preset: One of `presets`.
            data: Data spec instead of the preset's.
            seeds: How many seeds instead of the preset's; lines with few keep theirs if fewer.

        Returns:
            Label -> its runs.

        Raises:
            ValueError: There is no such preset, `seeds` is below 1, or lines have data of their
                own and `data` is given.
        """
        if seeds is not None and seeds < 1:
            raise ValueError(f"seeds={seeds}: give how many, at least 1")
        lines, size = self.lines_of(preset), self.presets[preset]
        if data is not None and not size.data:
            raise ValueError(f"data={data!r}: lines of {self.name} have their own; leave data out")
        chosen = size.chosen if seeds is None else range(seeds)
        found = {}
        for line in lines:
            one = line.runs[preset]
            one = one if data is None else one.on(size.data, data)
            few = None if preset == "paper" else line.seeds
            found[line.label] = one.over(chosen[:few])
        return found
