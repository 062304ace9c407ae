"""`weightfold experiment run`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


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

    data_root: Path | None = None
    """Data folder; none: the environment variable WEIGHTFOLD_DATA."""

    on: str = "local"
    """Where networks are trained: local; slurm,partition=gpu,gpus_per_node=1,time=120; or
    ray,address=auto. See docs/cluster.md."""

    jobs: int | None = None
    """Networks trained at once; none: one on this machine, elsewhere as many as there is room for.
    On this machine they share the cores and are dealt the GPUs in turn; 2 or more pay for small
    networks."""

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
