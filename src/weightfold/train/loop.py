"""Training of one network on one data set."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from weightfold.data import Dataset
from weightfold.train.drive import Accuracies, Course, Job, Precision, run
from weightfold.train.feed import set_aside, training_batches
from weightfold.train.history import History, Row
from weightfold.train.recipe import Distillation, Recipe
from weightfold.train.record import describe, describe_data, digest
from weightfold.train.steps import Fabric, PlainSteps, Trained


def fit(
    net: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    folder: Path | str,
    seed: int,
    validation: int | float = 0,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    device: str = "auto",
    precision: Precision = "32-true",
    devices: int = 1,
    resume: bool = True,
    progress: bool | Callable[[Row], None] = True,
    tensorboard: bool = False,
    about: Mapping[str, Any] | None = None,
) -> History:
    """Train a network and leave its record in a folder.

    After each epoch the folder holds run.json (configuration, versions, machine), metrics.csv,
    history.json, last.pt (to resume from), last.safetensors and best.safetensors
    (`net.state_dict()`). A run that was stopped, by whatever, continues after its last whole epoch
    when `fit` is called again, and on a device with deterministic kernels, such as a CPU, ends with
    the weights, bit for bit, of a run never stopped: data order, augmentation and torch's random
    numbers of an epoch depend on (seed, epoch) alone, the learning rate on the step alone. A
    finished run is not trained again. The caller's random state is left as found.

    Args:
        net: Maps float32 (B, C, H, W) to logits (B, classes). Holds the last epoch's weights on
            return. Its initial weights are the caller's; for a seeded run, seed them.
        dataset: Training and test images.
        recipe: Every hyperparameter.
        folder: Where the record goes; made if missing.
        seed: Of data order, augmentation, validation split and dropout.
        validation: Images (int) or share (float) of the training set to hold out. The best epoch
            is chosen on them, without them on the test set, as `History.selection` says.
        teacher: Distill from this network, in eval mode; a copy is used.
        distillation: How; given with `teacher`.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "32-true"; or "16-mixed" or "bf16-mixed", in which charts stay in float32.
        devices: Processes, each with a device and its slice of every batch (DDP, started by spawn:
            guard your script with `if __name__ == "__main__"`). The gradient is that of the whole
            batch; batch norm sees its slice, and the first process's statistics are kept.
        resume: False refuses a folder that holds a run.
        progress: True for a progress bar; or a function called with each epoch's row.
        tensorboard: Also write the figures to folder/tensorboard.
        about: What else defines the run (network, expansion...), as JSON values; recorded, and
            compared when the folder already holds a run.

    Returns:
        The history of all epochs, earlier sessions' included.

    Raises:
        FileExistsError: The folder holds another run (the message names what differs), or holds
            this one and `resume` is False; or another process trains in it.
        OSError: The disk is full or read-only, ...; the message names the file.
        NonFiniteLoss: The loss became NaN or infinite.
        ValueError: An argument is out of range, or the network has not one output per class.
    """
    if (teacher is None) != (distillation is None):
        raise ValueError("teacher and distillation go together: give both or neither")
    if not 1 <= devices <= max(1, recipe.batch_size // 2):
        raise ValueError(f"devices={devices}: it must be between 1 and half of batch_size")
    configuration = describe(
        net,
        recipe,
        seed=seed,
        validation=validation,
        precision=precision,
        about=about or {},
        dataset=describe_data(dataset),
        teacher=digest(teacher) if teacher else None,
        distillation=asdict(distillation) if distillation else None,
    )
    job = _Job(
        recipe=recipe,
        folder=Path(folder),
        configuration=configuration,
        seed=seed,
        validation=validation,
        progress=progress,
        tensorboard=tensorboard,
        dataset=dataset,
        teacher=teacher,
        distillation=distillation,
    )
    return run(job, net, device=device, precision=precision, devices=devices, resume=resume)


@dataclass(frozen=True)
class _Job(Job[History]):
    """What `fit` was given."""

    dataset: Dataset
    teacher: nn.Module | None
    distillation: Distillation | None

    @property
    def history_type(self) -> type[History]:
        """A plain one."""
        return History

    def start(self, fabric: Fabric, net: nn.Module) -> Course:
        """One process's part."""
        return _Course(self, fabric, net)


class _Course(Course):
    def __init__(self, job: _Job, fabric: Fabric, net: nn.Module) -> None:
        dataset, recipe = job.dataset, job.recipe
        train, held_out = set_aside(dataset, job.validation, job.seed)
        steps = PlainSteps(fabric, net, dataset.num_classes, recipe, job.teacher, job.distillation)
        super().__init__(steps, training_batches(train, dataset, recipe, job.seed, fabric.device))
        self._accuracies = Accuracies(steps, "", dataset, train, held_out)

    def measure(self, trained: Trained) -> dict[str, Any]:
        return {**trained.figures[""], **self._accuracies.now()}

    def final(self) -> dict[str, Any]:
        return {"final_train_error": self._accuracies.train_error()}
