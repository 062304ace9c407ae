"""Training of one network on one task."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from weightfold.core.arguments import checked_seed, unwrapped
from weightfold.data import Augment, Data
from weightfold.hints import check_arguments
from weightfold.tasks.measure import Measure
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.history import History, Row
from weightfold.train.launch import Training, run
from weightfold.train.optimizer import optimizer_of
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import describe
from weightfold.train.starts import begin
from weightfold.train.strategies.fabric import Fabric, OnFabric, Single


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

    >>> import weightfold as wf
    >>> net = wf.nets.build("digitnet", num_classes=10, in_channels=1)
    >>> data = wf.data.load("digits,limit=100")
    >>> history = wf.fit(net, data, wf.Recipe(epochs=2), progress=False)
    >>> len(history.rows), history.measure.name
    (2, 'accuracy')

    After each epoch the folder holds run.json (configuration, versions, machine), metrics.csv,
    history.json, last.pt (to resume from), last.safetensors and best.safetensors
    (`net.state_dict()`). A run that was stopped, by whatever, continues after its last checkpoint
    when `fit` is called again, and on a device with deterministic kernels, such as a CPU, ends with
    the weights, bit for bit, of a run never stopped: data order and augmentation of an epoch depend
    on (seed, epoch) alone, torch's random numbers on (seed, step), the learning rate on the step. A
    finished run is not trained again. The caller's random state is left as found.

    Args:
        net: Takes the task's inputs, float32 (B, ...), and gives what the task reads: logits
            (B, classes) where data is given to classify. Holds the last weights on return, and
            `weightfold.Preprocessing` of uint8 images. Its initial weights are the caller's; for a
            seeded run, seed them.
        data: What is learnt; data alone is to be classified.
        recipe: Every hyperparameter.
        seed: Of data order, augmentation, validation split and dropout.
        folder: Where the record goes; made if missing. None: nothing is written.
        device: "auto", "cpu", "cuda" or "mps".
        progress: True for a progress bar; or a function called with each new row.
        options: How it is carried out; None: `Options()`.

    Returns:
        The history of all epochs, earlier sessions' included.

    Raises:
        FileExistsError: The folder holds another run (the message names what differs), or one of
            another version of weightfold, or this one and `options.resume` is False; or another
            process trains in it.
        NonFiniteLoss: The loss became NaN or infinite.
        OSError: The disk is full or read-only, ...; the message names the file.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range, there is no such device, or the network's outputs
            do not fit the task.
    """
    unwrapped(net)
    checked_seed(seed)
    check_arguments(fit, recipe=recipe, folder=folder, progress=progress, options=options)
    options = options or Options()
    if options.devices > max(1, recipe.batch_size // 2):
        raise ValueError(f"devices={options.devices}: it must be at most half of batch_size")
    task = as_task(data).with_smoothing(recipe.label_smoothing).hold_out(options.validation, seed)
    task.augmented(Augment(recipe.crop_padding, recipe.flip))
    begin(net, options.start)
    if (told := task.dataset.preprocessing) is not None:
        told.attach(net)
    training = _OneTask(
        recipe=recipe,
        folder=None if folder is None else Path(folder),
        configuration={}
        if folder is None
        else describe(net, recipe, seed=seed, options=options, task=task.identity()),
        seed=seed,
        progress=progress,
        options=options,
        task=task,
    )
    return run(training, net, device)


@dataclass(frozen=True)
class _OneTask(Training):
    """What `fit` was given."""

    task: Task

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The task's."""
        return self.task.measures

    def check(self, net: nn.Module) -> None:
        """By the task."""
        self.task.check(net, batch_size=self.recipe.batch_size)

    def strategy(self, fabric: Fabric, net: nn.Module) -> OnFabric:
        """In one process."""
        options, optimizer = self.options, None
        if options.lr_factors or options.in_place:
            decay = 0.0 if self.recipe.penalizes_theta else self.recipe.weight_decay
            optimizer = optimizer_of(
                net, self.recipe, decay, lr_factors=options.lr_factors, in_place=options.in_place
            )
        return Single(fabric, net, self.task, self.recipe, self.seed, optimizer=optimizer)
