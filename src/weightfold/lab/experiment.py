"""The experiments: found in `lab/papers/`, listed, run, and reported."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TypedDict

from weightfold.files import locked
from weightfold.lab.declare import PRESETS, Experiment
from weightfold.lab.domains_declare import DomainsExperiment
from weightfold.lab.domains_pruning import PruningExperiment
from weightfold.lab.probe_declare import ProbeExperiment
from weightfold.records import read_record

AnyExperiment = Experiment | DomainsExperiment | PruningExperiment | ProbeExperiment

RUNS = "runs"
PAGE_SECONDS = 300.0
"""That a page waits for another process that writes it; drawing it takes seconds."""
RESULTS = "results.json"


class Asked(TypedDict):
    """What an experiment's page was made of."""

    name: str
    preset: str
    seeds: int | None
    data: str | None


class Page(TypedDict):
    """What is read of an experiment's results.json."""

    asked: Asked


@cache
def experiments() -> Mapping[str, AnyExperiment]:
    """All experiments by name: every `EXPERIMENTS` of the modules in `lab/papers/`.

    Raises:
        ValueError: Two have one name.
    """
    package = importlib.import_module("weightfold.papers")
    found: dict[str, AnyExperiment] = {}
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    for module in (name for name in names if not name.startswith("_")):
        for experiment in importlib.import_module(f"{package.__name__}.{module}").EXPERIMENTS:
            if experiment.name in found:
                raise ValueError(f"two experiments are called {experiment.name!r}")
            found[experiment.name] = experiment
    return found


def experiment(name: str) -> AnyExperiment:
    """An experiment by its name.

    Raises:
        ValueError: There is none; the message lists them.
    """
    if name not in experiments():
        raise ValueError(f"no experiment {name!r}; experiments: {', '.join(experiments())}")
    return experiments()[name]


def print_experiments() -> None:
    """Print every experiment with what each preset runs, and what is not run by default."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "experiment", "shows", *PRESETS, title="runs of each preset: networks trained, or probes"
    )
    for name, found in experiments().items():
        counts = (sum(map(len, found.cells(preset).values())) for preset in PRESETS)
        table.add_row(name, "\n".join([found.title, *found.remarks]), *map(str, counts))
    Console().print(table)


def run_experiment(
    name: str,
    preset: str,
    folder: Path,
    *,
    data_root: Path | None = None,
    on: str = "local",
    jobs: int | None = None,
    seeds: int | None = None,
    data: str | None = None,
    runs: Path | None = None,
    progress: bool = True,
) -> Path:
    """Run an experiment, or go on with it, and write its page.

    Args:
        name: One of `experiments()`.
        preset: "smoke", "cpu" or "paper".
        folder: Results go to folder/<name>/<preset>.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        on: As for `run_cells`.
        jobs: As for `run_cells`.
        seeds: How many: 0, 1, 2, ...; None: the preset's.
        data: Data spec instead of the preset's, such as "cifar100".
        runs: Folder of the runs, shared by experiments; None: folder/runs.
        progress: Show bars.

    Returns:
        The page.

    Raises:
        CellsFailed: Some cells failed; the page of the others is written.
        ConnectionError: The executor cannot be reached.
        ValueError: An argument is out of range.
    """
    from weightfold.lab.executors.registry import opened
    from weightfold.lab.runner import run_cells

    cells = experiment(name).cells(preset, data=data, seeds=seeds)
    where = folder / RUNS if runs is None else runs
    write = {"runs": where, "seeds": seeds, "data": data}
    with opened(on, where, jobs=jobs) as executor:
        report_experiment(name, preset, folder, **write)
        try:
            run_cells(
                [cell for line in cells.values() for cell in line],
                where,
                data_root=data_root,
                on=executor,
                progress=progress,
            )
        finally:
            page = report_experiment(name, preset, folder, **write)
    return page


def report_experiment(
    name: str,
    preset: str,
    folder: Path,
    *,
    runs: Path | None = None,
    seeds: int | None = None,
    data: str | None = None,
) -> Path:
    """Write results.csv, results.json, figures and the page from what is finished; trains nothing.

    Args:
        name: One of `experiments()`.
        preset: "smoke", "cpu" or "paper".
        folder: As for `run_experiment`.
        runs: As for `run_experiment`.
        seeds: As for `run_experiment`.
        data: As for `run_experiment`.

    Returns:
        The page.
    """
    where = folder / RUNS if runs is None else runs
    slug = "".join(c if c.isalnum() else "-" for c in f"{preset}-{data}") if data else preset
    asked = {"name": name, "preset": preset, "seeds": seeds, "data": data}
    with locked(folder / name / slug, PAGE_SECONDS):
        return experiment(name).write(preset, where, folder / name / slug, asked=asked)


def report(folder: Path, *, runs: Path | None = None) -> list[Path]:
    """Write again the pages of all experiments in a folder; trains nothing.

    Args:
        folder: That was given to `run_experiment`.
        runs: Folder of the runs; None: folder/runs.

    Returns:
        The pages.

    Raises:
        FileNotFoundError: The folder holds no experiment's results.
    """
    found = sorted(folder.glob(f"*/*/{RESULTS}"))
    if not found:
        raise FileNotFoundError(
            f"folder={str(folder)!r} holds no <experiment>/<preset>/{RESULTS}; give the folder "
            "that experiments were run in"
        )
    asked = [read_record(path, Page)["asked"] for path in found]
    pages = [report_experiment(folder=folder, runs=runs, **one) for one in asked]
    for page in pages:
        print(page)
    return pages
