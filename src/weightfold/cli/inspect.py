"""`weightfold inspect`."""

from dataclasses import dataclass
from pathlib import Path

from weightfold.cli.options import Data, DataRoot, Device, Model, Weights


@dataclass(frozen=True)
class Inspect:
    """Ask what a network needs, within a time budget, and write one page a person would read.

    How many parameters it needs, how many weights can be pruned, which layers matter, and whether
    it learns noise by heart, each with its uncertainty. The network is timed first; each probe gets
    a share of the time and the largest sizes that fit. What does not fit is named with the time it
    needs. The page is written anew after each probe; the same command goes on where it was stopped,
    and with what there was no time for.
    """

    model: Model

    data: Data

    folder: Path
    """Where the page and the measurements go; one that holds another inspection is refused."""

    minutes: float = 10.0
    """How long this command may take."""

    weights: Weights = ""

    on: str = ""
    """Where it is made, as one run: slurm,partition=gpu,gpus_per_node=1,time=120; or
    ray,address=auto. See docs/cluster.md. None: in this process."""

    device: Device = "auto"

    data_root: DataRoot = None

    def run(self) -> None:
        """Inspect, and print the answers."""
        from weightfold.lab.sweep import InspectionRun, execution_on, inspect_on

        run = InspectionRun(self.model, self.data, self.weights, self.minutes)
        if self.on:
            execution = execution_on(self.on, None, self.data_root, self.device)
            found = inspect_on(run, self.folder, execution)
        else:
            found = run.inspect(self.folder, data_root=self.data_root, device=self.device)
        for finding in found.findings.values():
            print(f"{finding.headline}\n")
        for name, reason in found.left_out.items():
            print(f"{name}: {reason}\n")
        print(f"everything is in {found.page}")
