"""`weightfold inspect`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Inspect:
    """Ask what a network needs, within a time budget, and write one page a person would read.

    How many parameters it needs, how many weights can be pruned, which layers matter, and whether
    it learns noise by heart, each with its uncertainty. The network is timed first; each probe gets
    a share of the time and the largest sizes that fit. What does not fit is named with the time it
    needs. The page is written anew after each probe; the same command goes on where it was stopped,
    and with what there was no time for.
    """

    model: str
    """Network: one of weightfold's (mlp, lenet, digitnet...), a classification model of torchvision
    (resnet18,small_image=true), timm/NAME, or module:function of your own."""

    data: str
    """Data set: digits, cifar10, mnist, ..., the path of an .npz file or of a folder of images;
    with options such as rgb=true, limit=5000, corrupt=0.8."""

    folder: Path
    """Where the page and the measurements go; one that holds another inspection is refused."""

    minutes: float = 10.0
    """How long this command may take."""

    weights: str = ""
    """Weights to start from, instead of a seed's: last.safetensors of a run of 'weightfold train',
    or your own state_dict as safetensors."""

    on: str = ""
    """Where it is made, as one run: slurm,partition=gpu,gpus_per_node=1,time=120; or
    ray,address=auto. See docs/cluster.md. None: in this process."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""

    data_root: Path | None = None
    """Data folder; none: the environment variable WEIGHTFOLD_DATA."""

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
