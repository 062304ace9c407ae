"""Probes and inspections as runs on an executor: a probe's seeds each by itself, where they can be.

Imports no torch.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.files import locked
from weightfold.lab.probing import Probing, checked, model_of, samples_of
from weightfold.lab.run import Execution, Run
from weightfold.lab.running import RUNS
from weightfold.records import write_record
from weightfold.train.progress import ProgressCallback

if TYPE_CHECKING:
    from weightfold.lab.inspect import Inspection
    from weightfold.probes.finding import Finding


def execution_on(on: str, jobs: int | None, data_root: Path | None, device: str) -> Execution:
    """Where runs are made; each of them takes an accelerator of its machine if there is one.

    Raises:
        ValueError: A device is asked for.
    """
    if device != "auto":
        raise ValueError(f"device={device!r} with on={on!r}: leave one of them out")
    return Execution(on, jobs, data_root)


def inspect_on(run: "InspectionRun", folder: Path | str, execution: Execution) -> "Inspection":
    """Make an inspection as a run; its page is below `folder`.

    Raises:
        CellsFailed: It failed.
        ConnectionError: The executor cannot be reached.
    """
    from weightfold.lab.runner import run_cells

    if run.weights:
        run = replace(run, weights=str(Path(run.weights).absolute()))
    folder = Path(folder)
    found = run_cells(
        [run],
        folder,
        data_root=execution.data_root,
        on=execution.on,
        jobs=execution.jobs,
        progress=execution.progress,
    )[run]
    return replace(found, page=folder / run.folder / found.page.name)


def probe_on(call: Probing, folder: Path | str, execution: Execution) -> "Finding":
    """Make a probe's call as runs, one for each seed, and write what they find together.

    A probe whose seeds depend on each other (`Finding.per_seed` is empty) is one run. Finished
    runs are read, so that the same call goes on where it was stopped.

    Args:
        call: What to probe.
        folder: Gets the folder runs, run.json, result.json, results.csv and the page.
        execution: Where and how they are made.

    Raises:
        CellsFailed: A seed's run failed; the others were run.
        ConnectionError: The executor cannot be reached.
        FileExistsError: The folder holds something else, or another process probes in it.
        ValueError: The probe, one of its options, the network or the data is wrong.
    """
    from weightfold.lab.runner import run_cells
    from weightfold.probes.finding import joined, write_finding
    from weightfold.train.checkpoint import RUN
    from weightfold.train.record import check_same
    from weightfold.train.seeding import as_seeds

    folder = Path(folder)
    if call.weights:
        call = replace(call, weights=str(Path(call.weights).absolute()))
    runs = {"all": call}
    if checked(call).finding.per_seed:
        runs = {str(seed): call.over((seed,))[0] for seed in as_seeds(call.seeds)}
    configuration = json.loads(json.dumps({"probed": call.settings}))
    check_same(configuration, folder)
    with locked(folder):
        if not check_same(configuration, folder):
            write_record(folder / RUN, {"configuration": configuration})
        records = run_cells(
            tuple(runs.values()),
            folder / RUNS,
            data_root=execution.data_root,
            on=execution.on,
            jobs=execution.jobs,
            progress=execution.progress,
        )
        found = joined({seed: records[run] for seed, run in runs.items()})
        write_finding(found, folder, title=call.title)
    return found


@dataclass(frozen=True)
class InspectionRun(Run):
    """An inspection of a network and data that are named by their specs.

    Attributes:
        model: As for `Probing`.
        data: As for `Probing`.
        weights: As for `Probing`.
        minutes: To be used by a call; the same inspection goes on with more.
    """

    model: str
    data: str
    weights: str = ""
    minutes: float = field(default=10.0, compare=False)

    @property
    def title(self) -> str:
        """What is inspected."""
        return f"{self.model} on {self.data}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Network and data."""
        return ("inspect", self.model, self.data)

    def finished(self, root: Path) -> Any:
        """Never: a further call goes on with what there was no time for."""
        return None

    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | ProgressCallback = True
    ) -> "Inspection":
        """Inspect in its folder below `root`, or go on there."""
        return self.inspect(root / self.folder, data_root=data_root, progress=progress is True)

    def inspect(
        self,
        folder: Path,
        *,
        data_root: Path | None = None,
        device: str = "auto",
        progress: bool = True,
    ) -> "Inspection":
        """Inspect in a folder, as `wf.inspect`."""
        from weightfold.lab.inspect import inspect

        call = Probing("", self.model, self.data, weights=self.weights)
        samples = samples_of(call, data_root)
        return inspect(
            model_of(call, samples),
            samples,
            minutes=self.minutes,
            folder=folder,
            title=self.title,
            device=device,
            progress=progress,
        )
