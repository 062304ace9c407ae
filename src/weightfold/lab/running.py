"""Experiments run, reported and listed."""

from collections.abc import Mapping
from pathlib import Path

from weightfold.files import locked
from weightfold.lab.experiment import PRESETS, Experiment
from weightfold.lab.kept import RESULTS, read_kept
from weightfold.lab.run import HERE, Execution, slug

RUNS = "runs"
PAGE_SECONDS = 300.0
"""That a page waits for another process that writes it; drawing it takes seconds."""


def print_experiments(experiments: Mapping[str, Experiment]) -> None:
    """Print every experiment with what each preset runs, and what is not run by default."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "experiment", "shows", *PRESETS, title="runs of each preset: networks trained, or probes"
    )
    for name, found in experiments.items():
        counts = (sum(map(len, found.runs(preset).values())) for preset in PRESETS)
        table.add_row(name, "\n".join([found.title, *found.remarks]), *map(str, counts))
    Console().print(table)


def run_experiment(
    experiment: Experiment,
    preset: str,
    folder: Path | str,
    *,
    seeds: int | None = None,
    data: str | None = None,
    runs: Path | str | None = None,
    execution: Execution = HERE,
) -> Path:
    """Run an experiment, or go on with it, and write its page.

    Args:
        experiment: Which.
        preset: One of its presets, such as "smoke", "cpu" or "paper".
        folder: Results go to folder/<name>/<preset>.
        seeds: How many: 0, 1, 2, ...; None: the preset's.
        data: Data spec instead of the preset's, such as "cifar100".
        runs: Folder of the runs, shared by experiments; None: folder/runs.
        execution: Where and how they are made.

    Returns:
        The page.

    Raises:
        CellsFailed: Some runs failed; the page of the others is written.
        ConnectionError: The executor cannot be reached.
        ValueError: An argument is out of range.
    """
    from weightfold.lab.executors.registry import opened
    from weightfold.lab.runner import run_cells

    folder = Path(folder)
    wanted = experiment.runs(preset, data=data, seeds=seeds)
    where = folder / RUNS if runs is None else Path(runs)
    write = {"runs": where, "seeds": seeds, "data": data}
    with opened(execution.on, where, jobs=execution.jobs) as executor:
        report_experiment(experiment, preset, folder, **write)
        try:
            run_cells(
                [run for line in wanted.values() for run in line],
                where,
                data_root=execution.data_root,
                on=executor,
                progress=execution.progress,
            )
        finally:
            page = report_experiment(experiment, preset, folder, **write)
    return page


def report_experiment(
    experiment: Experiment,
    preset: str,
    folder: Path | str,
    *,
    runs: Path | str | None = None,
    seeds: int | None = None,
    data: str | None = None,
    kept: bool = False,
) -> Path:
    """Write results.csv, results.json, figures and the page from what is finished; runs nothing.

    Args:
        experiment: As for `run_experiment`.
        preset: As for `run_experiment`.
        folder: As for `run_experiment`.
        runs: As for `run_experiment`.
        seeds: As for `run_experiment`.
        data: As for `run_experiment`.
        kept: Take runs that are not in `runs` from the results.json that lies there already.

    Returns:
        The page.
    """
    from weightfold.lab.page import write_results
    from weightfold.lab.results import read_results

    folder = Path(folder)
    where = folder / RUNS if runs is None else Path(runs)
    target = folder / experiment.name / (slug(f"{preset}-{data}") if data else preset)
    asked = {"name": experiment.name, "preset": preset, "seeds": seeds, "data": data}
    experiment.runs(preset, data=data, seeds=seeds)  # refused before there is a folder
    with locked(target, PAGE_SECONDS):
        before = read_kept(target / RESULTS) if kept else None
        results = read_results(experiment, preset, where, data=data, seeds=seeds, kept=before)
        return write_results(results, target, asked=asked)


def report(
    folder: Path | str,
    experiments: Mapping[str, Experiment],
    *,
    runs: Path | str | None = None,
) -> list[Path]:
    """Write again the pages of all experiments in a folder; runs nothing.

    What their runs came to is read from the runs' folders, or, where those are gone, from each
    results.json.

    Args:
        folder: That was given to `run_experiment`.
        experiments: By name; those in the folder are among them.
        runs: Folder of the runs; None: folder/runs.

    Returns:
        The pages.

    Raises:
        FileNotFoundError: The folder holds no experiment's results.
        KeyError: It holds those of an experiment that is not known.
    """
    folder = Path(folder)
    found = sorted(folder.glob(f"*/*/{RESULTS}"))
    if not found:
        raise FileNotFoundError(
            f"folder={str(folder)!r} holds no <experiment>/<preset>/{RESULTS}; give the folder "
            "that experiments were run in"
        )
    pages = []
    for path in found:
        asked = read_kept(path).asked
        name = asked["name"]
        if name not in experiments:
            raise KeyError(f"{path} is of {name!r}; the experiments are {', '.join(experiments)}")
        chosen = {key: asked[key] for key in ("seeds", "data")}
        pages.append(
            report_experiment(
                experiments[name], asked["preset"], folder, runs=runs, kept=True, **chosen
            )
        )
    return pages
