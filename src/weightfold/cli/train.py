"""`weightfold train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from weightfold.cli.options import Data, DataRoot, Device, Model
from weightfold.cli.presets import Preset
from weightfold.cli.scan import help_of, task_lines, variant_lines
from weightfold.tasks.distillation import Distillation
from weightfold.train.recipe import RECIPES, Recipe

_TASKS, _VARIANTS = help_of(task_lines()), help_of(variant_lines())


@dataclass(frozen=True)
class Train:
    """Train one network, plainly or in other coordinates.

    The folder gets the weights of the last and the best epoch (safetensors), metrics.csv and
    history.json, run.json (configuration, versions, machine), and last.pt, from which the same
    command goes on after an interruption. 'weightfold export' makes the deployed network of it.
    """

    model: Model

    data: Data

    folder: Path
    """Where the run goes; one that holds another run is refused."""

    task: Annotated[
        str,
        tyro.conf.arg(help=f"What is learnt, of data that has targets for it. Tasks:\n{_TASKS}"),
    ] = "classify"

    output: str | None = None
    """Name or place of the output that is judged, of a network that gives several; none: that
    called out or logits."""

    variant: Annotated[
        str, tyro.conf.arg(help=f"How the network is made and trained. Variants:\n{_VARIANTS}")
    ] = "compact"

    seed: int = 0
    """Of initial weights, order of the data, augmentation, dropout and validation split."""

    validation: int | float = 0
    """Training images (5000) or share of them (0.1) held out to choose the best epoch by; 0: none,
    and the best epoch is chosen on the test images."""

    teacher: Path | None = None
    """Folder of a finished run, whose last weights teach this one (knowledge distillation)."""

    teacher_model: str | None = None
    """The teacher's network, for a run of a module:function of yours, which no file may run by
    itself."""

    distillation: Distillation = field(default_factory=Distillation)
    """How the teacher's logits enter the loss."""

    device: Device = "auto"

    devices: int = 1
    """Processes that share every batch, each on a device of its own."""

    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Of the forward pass; weights and charts stay in float32."""

    tensorboard: bool = False
    """Also log to the run's folder in TensorBoard's format."""

    data_root: DataRoot = None

    preset: Annotated[Preset, tyro.conf.arg(name="recipe")] = "digits"
    """Preset of the hyperparameters. Those below are its values; give one to change it."""

    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["digits"]

    def run(self) -> None:
        """Train, and print what was reached."""
        from weightfold.data import load
        from weightfold.lab.saved import load_run
        from weightfold.lab.variants import net_for
        from weightfold.tasks.registry import build
        from weightfold.train import Options, fit

        dataset = load(self.data, self.data_root)
        if self.teacher_model and not self.teacher:
            raise ValueError(f"teacher_model={self.teacher_model!r} needs --teacher, its run")
        teacher = (
            load_run(self.teacher, dataset, model=self.teacher_model, option="--teacher-model")
            if self.teacher
            else None
        )
        taught = {"teacher": teacher, "distillation": self.distillation} if teacher else {}
        read = {} if self.output is None else {"output": self.output}
        task = build(self.task, dataset, **taught, **read)
        net = net_for(task, self.model, self.variant, seed=self.seed)
        history = fit(
            net,
            task,
            self.recipe,
            folder=self.folder,
            seed=self.seed,
            device=self.device,
            options=Options(
                validation=self.validation,
                devices=self.devices,
                precision=self.precision,
                tensorboard=self.tensorboard,
                about={"model": self.model, "variant": self.variant, "data": self.data},
            ),
        )
        measure = history.measure
        best = measure.text(history.best_value).removeprefix(f"{measure.name} ")
        print(
            f"test {measure.text(history.last_value)} after the last of {len(history.rows)} "
            f"epochs; {best} after epoch {history.best_epoch}, the best by "
            f"{history.selection}; {1e3 * history.seconds_per_step:.2f} ms a step; "
            f"everything is in {self.folder}"
        )
