"""What an experiment on several domains is, declared. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weightfold.lab.declare import PRESETS
from weightfold.lab.domains_cell import Domain, DomainCell
from weightfold.train.domains.joint import Joint
from weightfold.train.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """A line: one plan for one backbone.

    Attributes:
        label: Unique in the experiment.
        backbone: Key of the preset's `models`.
        plan: As `DomainCell` takes it.
        published: Domain of the paper -> validation accuracy as printed, a share in [0, 1].
        parameters: Millions of parameters as printed; "" if they are not.
        domains: How many of the preset's domains, the first ones; None: all.
        paper_plan: `plan` in the preset paper, where it differs.
    """

    label: str
    backbone: str
    plan: str
    published: Mapping[str, float] | None = None
    parameters: str = ""
    domains: int | None = None
    paper_plan: str = ""


@dataclass(frozen=True)
class Size:
    """A preset.

    Attributes:
        models: Backbone -> network spec.
        starts: Backbone -> what its networks start from.
        recipes: Backbone -> hyperparameters; "" are those of backbones without an entry.
        domains: In the order in which lines take the first ones.
        seeds: How many: 0, 1, 2, ...
        sizes: Backbone -> height and width of the images; "" as in `recipes`.
        differs: How this differs from what the paper did.
        joint: How the domains are trained together.
        test_limit: As for `DomainCell`.
        labels: Lines run; None: all.
    """

    models: Mapping[str, str]
    starts: Mapping[str, DomainCell | str | None]
    recipes: Mapping[str, Recipe]
    domains: tuple[Domain, ...]
    seeds: int
    sizes: Mapping[str, int]
    differs: str
    joint: Joint = field(default_factory=Joint)
    test_limit: int | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Counted:
    """A claim of the paper, counted in cells: a domain of a pair of lines each.

    Attributes:
        text: In our words.
        pairs: Labels (a, b): a is said to be the more accurate.
        or_equal: The claim is "at least as accurate".
    """

    text: str
    pairs: tuple[tuple[str, str], ...]
    or_equal: bool = False


@dataclass(frozen=True)
class DomainsExperiment:
    """A table or figure about several domains in one backbone.

    Attributes:
        name: "zhang2021-table1".
        paper: Authors, title, place in the paper.
        title: What it shows.
        lines: From top to bottom.
        presets: Preset -> how it is run, one for each of `PRESETS`.
        claims: What the paper says, and what our ablations ask.
        figures: Figures of its page: "curves", "share".
        notes: What is said with the numbers.

    Raises:
        ValueError: Labels repeat, or a preset is missing, or lacks a line's backbone.
    """

    name: str
    paper: str
    title: str
    lines: tuple[Plan, ...]
    presets: Mapping[str, Size]
    claims: tuple[Counted, ...]
    figures: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        labels = [line.label for line in self.lines]
        if len({*labels}) < len(labels) or {*self.presets} != {*PRESETS}:
            raise ValueError(f"experiment {self.name}: labels repeat, or presets are not {PRESETS}")
        named = {label for claim in self.claims for pair in claim.pairs for label in pair}
        if not named <= {*labels}:
            raise ValueError(f"experiment {self.name}: no lines {sorted(named - {*labels})}")
        for preset in self.presets:
            for line in self.lines_of(preset):
                if line.backbone not in self.presets[preset].models:
                    raise ValueError(
                        f"experiment {self.name}, preset {preset}: no model for {line.backbone!r}"
                    )

    @property
    def remarks(self) -> list[str]:
        """What cannot be run without data of the user's."""
        return [
            "paper: needs the domains' images as folders and ImageNet weights in the data folder"
        ]

    def lines_of(self, preset: str) -> tuple[Plan, ...]:
        """The lines a preset runs.

        Raises:
            ValueError: There is no such preset.
        """
        if preset not in self.presets:
            raise ValueError(f"preset={preset!r}; choose {', '.join(self.presets)}")
        chosen = self.presets[preset].labels
        return tuple(line for line in self.lines if chosen is None or line.label in chosen)

    def cells(
        self, preset: str, *, data: str | None = None, seeds: int | None = None
    ) -> dict[str, tuple[DomainCell, ...]]:
        """What a preset trains.

        Args:
            preset: One of `PRESETS`.
            data: None; the domains are the preset's.
            seeds: How many seeds instead of the preset's.

        Returns:
            Label -> one cell per seed.

        Raises:
            ValueError: There is no such preset, `seeds` is below 1, or `data` is given.
        """
        if data is not None:
            raise ValueError(
                f"data={data!r}: {self.name} has several domains, found in the data folder; "
                "leave data out"
            )
        if seeds is not None and seeds < 1:
            raise ValueError(f"seeds={seeds}: give how many, at least 1")
        lines, size = self.lines_of(preset), self.presets[preset]
        return {
            line.label: tuple(
                _cell(line, size, preset, seed) for seed in range(seeds or size.seeds)
            )
            for line in lines
        }

    def write(self, preset: str, runs: Path, folder: Path, *, asked: Mapping[str, Any]) -> Path:
        """Write results.csv, results.json, figures and the page from what is finished."""
        from weightfold.lab.domains_page import write_results
        from weightfold.lab.domains_results import read_results

        results = read_results(self, preset, runs, seeds=asked["seeds"])
        return write_results(results, folder, asked=asked)


def _cell(line: Plan, size: Size, preset: str, seed: int) -> DomainCell:
    return DomainCell(
        model=size.models[line.backbone],
        plan=line.paper_plan if preset == "paper" and line.paper_plan else line.plan,
        domains=size.domains[: line.domains],
        recipe=size.recipes.get(line.backbone, size.recipes[""]),
        seed=seed,
        size=size.sizes.get(line.backbone, size.sizes[""]),
        joint=size.joint,
        start=size.starts.get(line.backbone),
        test_limit=size.test_limit,
    )
