"""What an experiment is: a table or figure of a paper, declared. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.lab.cell import Cell
from weightfold.tasks.distillation import Distillation
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from weightfold.lab.claims import Claim
    from weightfold.lab.outcomes import Outcome

PRESETS = ("smoke", "cpu", "paper")

Number = tuple[float, float | None]
"""A published mean and its spread, None if not printed."""


@dataclass(frozen=True)
class Column:
    """A data set of the paper's table.

    Attributes:
        name: Data spec to load it by; `Experiment.cells` may be given another.
        title: As the paper calls it.
        classes: How many.
        image_shape: (channels, height, width).
        missing: Why it is not run by default, and how a user runs it; "" for the default column.
    """

    name: str
    title: str
    classes: int
    image_shape: tuple[int, int, int]
    missing: str = ""


@dataclass(frozen=True)
class Measure:
    """A figure of one run.

    Attributes:
        key: In CSV and JSON, and in `Line.published`.
        title: With its unit.
        of: Gives it; None if the run has not got as far.
        digits: Shown after the decimal point.
        counted: It follows from the network alone, is known untrained and has no spread.
        relative_to: Label of the line by whose value, of the same seed, it is divided; "" for none.
    """

    key: str
    title: str
    of: "Callable[[Outcome], float | None]"
    digits: int = 2
    counted: bool = False
    relative_to: str = ""


@dataclass(frozen=True)
class Line:
    """A line of the table: one network trained in one way.

    Attributes:
        label: Unique in the experiment.
        model: Network spec.
        variant: As `weightfold.lab.variants` takes it.
        published: Column -> measure -> the paper's number.
        options: Of the data, "corrupt=0.8,seed=0".
        recipe: Which of the preset's recipes.
        teacher: Network spec of a teacher, trained compact with the preset's recipe "teacher".
        distillation: Temperature and weight; with `teacher`.
    """

    label: str
    model: str
    variant: str
    published: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
    options: str = ""
    recipe: str = ""
    teacher: str = ""
    distillation: Distillation | None = None


@dataclass(frozen=True)
class Preset:
    """One size in which an experiment is run.

    Attributes:
        recipes: Hyperparameters; "" are those of lines that name none.
        seeds: How many: 0, 1, 2, ...
        differs: How this differs from what the paper did, or is known to have done.
        data: Data spec instead of the column's; "" for the column's.
        options: More options of the data, "limit=5000".
        lines: Labels of the lines run; None: all.
    """

    recipes: Mapping[str, Recipe]
    seeds: int
    differs: str
    data: str = ""
    options: str = ""
    lines: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    Attributes:
        name: "guo2020-table9".
        paper: Authors, year, title.
        title: What the table shows.
        columns: Data sets; the first is the default.
        measures: What is reported; the first one is drawn.
        lines: From top to bottom.
        presets: Preset -> how it is run, one for each of `PRESETS`.
        claims: What the paper says of it.
        notes: What is said with the numbers.

    Raises:
        ValueError: Labels repeat, or something refers to a line, column, measure or recipe that
            the experiment has not.
    """

    name: str
    paper: str
    title: str
    columns: tuple[Column, ...]
    measures: tuple[Measure, ...]
    lines: tuple[Line, ...]
    presets: Mapping[str, Preset]
    claims: "tuple[Claim, ...]" = ()
    notes: str = ""

    def __post_init__(self) -> None:
        labels = [line.label for line in self.lines]
        columns = [column.name for column in self.columns]
        keys = [measure.key for measure in self.measures]
        self._known("label", (x for x in labels if labels.count(x) > 1), ())
        self._known("preset", {*self.presets} ^ {*PRESETS}, ())
        self._known("line", (m.relative_to for m in self.measures if m.relative_to), labels)
        for preset in self.presets.values():
            self._known("line", preset.lines or (), labels)
            for line in self.lines:
                if preset.lines is None or line.label in preset.lines:
                    needed = [line.recipe, *(["teacher"] if line.teacher else [])]
                    self._known("recipe", needed, preset.recipes)
        for line in self.lines:
            self._known("column", line.published, columns)
            for published in line.published.values():
                self._known("measure", published, keys)

    def _known(self, what: str, names: "object", known: "object") -> None:
        unknown = sorted(set(names) - set(known))  # type: ignore[call-overload]
        if unknown:
            raise ValueError(
                f"experiment {self.name}: {what} {unknown[0]!r} is unknown or repeated"
            )

    @property
    def remarks(self) -> list[str]:
        """What is not run by default, and why."""
        return [f"{column.title}: {column.missing}" for column in self.columns if column.missing]

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
        return tuple(line for line in self.lines if chosen is None or line.label in chosen)

    def cells(
        self, preset: str, *, data: str | None = None, seeds: int | None = None
    ) -> dict[str, tuple[Cell, ...]]:
        """What a preset trains.

        Args:
            preset: One of `PRESETS`.
            data: Data spec instead of the preset's.
            seeds: How many seeds instead of the preset's.

        Returns:
            Label -> one cell per seed.

        Raises:
            ValueError: There is no such preset, or `seeds` is below 1.
        """
        if seeds is not None and seeds < 1:
            raise ValueError(f"seeds={seeds}: give how many, at least 1")
        lines, size = self.lines_of(preset), self.presets[preset]
        base = data or size.data or self.columns[0].name
        count = seeds or size.seeds
        return {
            line.label: tuple(_cell(line, size, base, seed) for seed in range(count))
            for line in lines
        }

    def write(self, preset: str, runs: Path, folder: Path, *, asked: Mapping[str, Any]) -> Path:
        """Write results.csv, results.json, figures and the page from what is finished.

        Args:
            preset: One of `PRESETS`.
            runs: Folder of the runs.
            folder: Made if missing.
            asked: What `report_experiment` was called with; "seeds" and "data" are as for `cells`.

        Returns:
            The page.
        """
        from weightfold.lab.experiment_page import write_results
        from weightfold.lab.outcomes import read_results

        results = read_results(self, preset, runs, data=asked["data"], seeds=asked["seeds"])
        return write_results(results, folder, asked=asked)


def _cell(line: Line, preset: Preset, data: str, seed: int) -> Cell:
    clean = ",".join(filter(None, (data, preset.options)))
    teacher = None
    if line.teacher:
        teacher = Cell(line.teacher, "compact", clean, preset.recipes["teacher"], 0)
    return Cell(
        model=line.model,
        variant=line.variant,
        data=",".join(filter(None, (clean, line.options))),
        recipe=preset.recipes[line.recipe],
        seed=seed,
        distillation=line.distillation,
        teacher=teacher,
    )
