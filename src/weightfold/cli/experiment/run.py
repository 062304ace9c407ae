"""`weightfold experiment run`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from weightfold.cli.options import DataRoot, Jobs, On


@dataclass(frozen=True)
class Run:
    """Run an experiment, or go on with it, and write its page."""

    name: tyro.conf.Positional[str]
    """One that 'weightfold experiment list' shows."""

    folder: Path
    """Where results go."""

    preset: Literal["smoke", "cpu", "paper"] = "smoke"
    """smoke: seconds, to see that it works; cpu: at most two hours on 2 cores; paper: the paper's
    own settings, for a GPU."""

    seeds: int | None = None
    """How many seeds: 0, 1, 2, ...; none: the preset's."""

    data: str | None = None
    """Data set instead of the experiment's, such as cifar100; none: its own."""

    runs: Path | None = None
    """Folder of the trained networks, which experiments share; none: runs/ in --folder."""

    data_root: DataRoot = None

    on: On = "local"

    jobs: Jobs = None

    def run(self) -> None:
        """Run it."""
        from weightfold.lab.run import Execution
        from weightfold.lab.running import run_experiment
        from weightfold.papers import experiment

        page = run_experiment(
            experiment(self.name),
            self.preset,
            self.folder,
            seeds=self.seeds,
            data=self.data,
            runs=self.runs,
            execution=Execution(self.on, self.jobs, self.data_root),
        )
        print(f"everything is in {page}")
