"""Training of one network on one task."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from weightfold.data import Augment, Data
from weightfold.tasks.measure import Measure
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.drive import Course, Job, run
from weightfold.train.evaluation import Evaluation
from weightfold.train.history import History, Row, Values
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import describe
from weightfold.train.steps import Fabric, PlainSteps, Steps, Trained


def fit(
    net: nn.Module,
    data: Task | Data,
    recipe: Recipe,
    *,
    seed: int = 0,
    folder: Path | str | None = None,
    device: str = "auto",
    progress: bool | Callable[[Row], None] = True,
    options: Options | None = None,
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
        net: Takes the task's inputs, float32 (B, ...), and gives what the task reads: logits
            (B, classes) where data is given to classify. Holds the last epoch's weights on return.
            Its initial weights are the caller's; for a seeded run, seed them.
        data: What is learnt; data alone is to be classified.
        recipe: Every hyperparameter.
        seed: Of data order, augmentation, validation split and dropout.
        folder: Where the record goes; made if missing. None: a temporary one, removed at the end.
        device: "auto", "cpu", "cuda" or "mps".
        progress: True for a progress bar; or a function called with each epoch's row.
        options: How it is carried out; None: `Options()`.

    Returns:
        The history of all epochs, earlier sessions' included.

    Raises:
        FileExistsError: The folder holds another run (the message names what differs), or holds
            this one and `options.resume` is False.
        NonFiniteLoss: The loss became NaN or infinite.
        ValueError: An argument is out of range, or the network's outputs do not fit the task.
    """
    options = options or Options()
    if options.devices > max(1, recipe.batch_size // 2):
        raise ValueError(f"devices={options.devices}: it must be at most half of batch_size")
    task = as_task(data).with_smoothing(recipe.label_smoothing)
    task = task.hold_out(options.validation, seed)
    task.augmented(Augment(recipe.crop_padding, recipe.flip))
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return fit(
                net,
                data,
                recipe,
                seed=seed,
                folder=temporary,
                device=device,
                progress=progress,
                options=options,
            )
    configuration = describe(net, recipe, seed=seed, options=options, task=task.identity())
    job = _Job(
        recipe=recipe,
        folder=Path(folder),
        configuration=configuration,
        seed=seed,
        progress=progress,
        tensorboard=options.tensorboard,
        task=task,
    )
    return run(job, net, device=device, options=options)


@dataclass(frozen=True)
class _Job(Job):
    """What `fit` was given."""

    task: Task

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The task's."""
        return self.task.measures

    @property
    def selects_on_validation(self) -> bool:
        """Whether the task has such a part."""
        return self.task.dataset.validation is not None

    def check(self, net: nn.Module) -> None:
        """By the task."""
        self.task.check(net)

    def start(self, fabric: Fabric, net: nn.Module) -> Course:
        """One process's part."""
        return _Course(self, fabric, net)


class _Course(Course):
    def __init__(self, job: _Job, fabric: Fabric, net: nn.Module) -> None:
        task, recipe = job.task, job.recipe
        batches = task.batches(
            "train",
            fabric.device,
            batch_size=recipe.batch_size,
            seed=job.seed,
            augment=Augment(recipe.crop_padding, recipe.flip),
        )
        super().__init__(PlainSteps(fabric, net, task, recipe), batches)
        self._evaluations = Evaluations(task, fabric)

    def measure(self, trained: Trained) -> Values:
        return {**trained.values[""], **self._evaluations.now(self.steps)}

    def final(self) -> Values:
        return self._evaluations.of_training(self.steps)


class Evaluations:
    """The parts of a task that are evaluated after each epoch, and at the end.

    Args:
        task: The task.
        fabric: Launched.
        domain: Its name among several.
    """

    def __init__(self, task: Task, fabric: Fabric, domain: str = "") -> None:
        self._task, self._fabric, self._domain = task, fabric, domain
        parts = [part for part in ("test", "validation") if part in task.dataset.parts]
        self._parts = {part: Evaluation(task, part, fabric.device, fabric) for part in parts}

    def now(self, steps: Steps) -> Values:
        """Columns of the test part and, if there is one, the validation part."""
        found = {}
        for part, evaluation in self._parts.items():
            found |= self._columns(part, steps, evaluation)
        return found

    def of_training(self, steps: Steps) -> Values:
        """Columns of the training examples as they are."""
        evaluation = Evaluation(self._task, "train", self._fabric.device, self._fabric)
        return self._columns("train_eval", steps, evaluation)

    def _columns(self, part: str, steps: Steps, evaluation: Evaluation) -> Values:
        found = evaluation.of(steps.net, lambda inputs: steps.forward(self._domain, inputs))
        return {f"{part}_{name}": value for name, value in found.items()}
