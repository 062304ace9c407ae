"""`weightfold probe`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from weightfold.cli.options import Data, DataRoot, Device, Model, Weights
from weightfold.cli.scan import help_of, task_lines, variant_lines
from weightfold.probes.registry import probe, probes

_TASKS, _VARIANTS = help_of(task_lines()), help_of(variant_lines())
_NAMES = "\n".join(f"{name}: {probe.line};" for name, probe in probes().items())


@dataclass(frozen=True)
class Probe:
    """Ask one question of a network and its data, and get the answer with its uncertainty.

    Prints the answer and what must be known to judge it. The folder gets the page (index.html), the
    figure, the measurements (results.csv, result.json) and the runs behind them. 'weightfold
    inspect' asks several questions within a time budget.
    """

    name: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            help=f"The probe, with its options and those of its recipe as in intrinsic-dimension,"
            f"threshold=0.8,epochs=5; an unknown option lists them all. Probes:\n{_NAMES[:-1]}."
        ),
    ]

    folder: Path
    """Where results go; one that holds another probe is refused."""

    model: Model = ""

    data: Data = ""

    variant: Annotated[
        str, tyro.conf.arg(help=f"How the network is made. Variants:\n{_VARIANTS}")
    ] = "compact"

    weights: Weights = ""

    disturb: str = ""
    """What is done to the data first: random-labels, random-pixels or gaussian (with fraction=0.5,
    seed=0), or shuffled-pixels."""

    test_limit: int | None = None
    """Test images kept; none: all."""

    seeds: int = 3
    """How many seeds: 0, 1, 2, ..."""

    task: Annotated[
        str,
        tyro.conf.arg(help=f"What is learnt, of data that has targets for it. Tasks:\n{_TASKS}"),
    ] = "classify"

    on: str = ""
    """Where the seeds are probed, each by itself where they do not depend on each other: local;
    slurm,partition=gpu,gpus_per_node=1,time=120; or ray,address=auto. See docs/cluster.md. None:
    all together, in this process."""

    jobs: int | None = None
    """Seeds probed at once, as --on says; none: one on this machine, elsewhere as many as there is
    room for."""

    device: Device = "auto"

    data_root: DataRoot = None

    def run(self) -> None:
        """Measure, and print the answer."""
        from weightfold.lab.probing import Probing, as_options, measure
        from weightfold.lab.sweep import execution_on, probe_on

        chosen, texts = probe(self.name)
        arguments = chosen.read(texts)
        call = Probing(
            chosen.name,
            self.model,
            self.data,
            recipe=arguments.pop("recipe", None),
            options=as_options(arguments),
            seeds=self.seeds,
            variant=self.variant,
            disturb=self.disturb,
            test_limit=self.test_limit,
            weights=self.weights,
            task=self.task,
        )
        if self.on or self.jobs:
            execution = execution_on(self.on or "local", self.jobs, self.data_root, self.device)
            found = probe_on(call, self.folder, execution)
        else:
            found = measure(call, self.folder, data_root=self.data_root, device=self.device)
        print("\n\n".join([found.headline, *found.notes]))
        print(f"\neverything is in {self.folder / 'index.html'}")
