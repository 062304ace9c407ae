"""Training of one net on several domains."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from weightfold.data import Augment, Data
from weightfold.tasks.measure import Measure
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.domains.check import check_all, check_domains, check_outputs
from weightfold.train.domains.feed import DomainBatches
from weightfold.train.domains.options import DomainOptions
from weightfold.train.domains.steps import JointSteps
from weightfold.train.drive import Course, Job, run
from weightfold.train.history import History, Row, Values
from weightfold.train.loop import Evaluations
from weightfold.train.recipe import Recipe
from weightfold.train.record import describe
from weightfold.train.steps import Fabric, Trained


def fit_domains(
    net: nn.Module,
    data: Mapping[str, Task | Data],
    recipe: Recipe,
    *,
    seed: int = 0,
    folder: Path | str,
    device: str = "auto",
    progress: bool | Callable[[Row], None] = True,
    options: DomainOptions | None = None,
) -> History:
    """Train a net on all its domains and leave its record in a folder.

    The loss of a step is the weighted sum, over the domains in it, of each one's mean loss; all of
    them run in one forward. Domains that are not in a step stay bit for bit: no gradient, no decay,
    no momentum. Folder, resuming, randomness and the caller's random state are as in
    `weightfold.train.fit`, with values of every domain.

    Args:
        net: A SharedNet, or a Charted net over one.
        data: Domain -> task, or data to classify, for every domain; sizes of inputs may differ. A
            task's own `augment` takes the place of the recipe's: digits and signs must not be
            mirrored, `Augment(flip=False)`.
        recipe: Every hyperparameter; `batch_size` is of each domain, decay is on psi.
        seed: Of data order, augmentation, validation split, sampler and dropout.
        folder: Where the record goes; made if missing.
        device: As for `fit`.
        progress: True for a progress bar with a line for each domain; or a function called with
            each epoch's row.
        options: How it is carried out, and how the domains are trained together; None:
            `DomainOptions()`. `validation` is of each domain.

    Returns:
        The history of all epochs, earlier sessions' included.

    Raises:
        FileExistsError: As `fit`.
        KeyError: Data for a domain the net has not.
        NonFiniteLoss: A domain's loss became NaN or infinite.
        TypeError: `net` has no domains.
        ValueError: An argument is out of range; a domain without data, with a task that the net's
            outputs do not fit, or with one of other measures than the rest.
    """
    options = options or DomainOptions()
    joint = options.joint
    tasks = {name: as_task(given) for name, given in data.items()}
    domains = check_domains(net, tasks)
    check_all(tasks, domains, "data")
    if isinstance(joint.loss_weights, Mapping):
        check_all(joint.loss_weights, domains, "loss_weights")
    if recipe.decay_on == "theta" and recipe.weight_decay:
        raise ValueError("decay_on='theta' would move absent domains; use decay_on='psi'")
    tasks = {
        name: tasks[name].with_smoothing(recipe.label_smoothing).hold_out(options.validation, seed)
        for name in domains
    }
    for task in tasks.values():
        task.augmented(Augment(recipe.crop_padding, recipe.flip))
    smallest = min(recipe.batch_size // 2, *(len(t.dataset.train) for t in tasks.values()))
    if options.devices > max(1, smallest):
        raise ValueError(
            f"devices={options.devices}: it must be at most half of batch_size, and no domain may "
            "have fewer training examples"
        )
    configuration = describe(
        net,
        recipe,
        seed=seed,
        options=options,
        tasks={name: task.identity() for name, task in tasks.items()},
        joint=asdict(joint),
        aggregator=_text_of(options.aggregator),
    )
    job = _Job(
        recipe=recipe,
        folder=Path(folder),
        configuration=configuration,
        seed=seed,
        progress=progress,
        tensorboard=options.tensorboard,
        tasks=tasks,
        options=options,
    )
    return run(job, net, device=device, options=options)


def _text_of(aggregator: Any) -> str | None:
    """What it calls itself, without the address that differs from one process to the next."""
    return None if aggregator is None else re.sub(r" at 0x\w+", "", repr(aggregator))


@dataclass(frozen=True)
class _Job(Job):
    """What `fit_domains` was given."""

    tasks: dict[str, Task]
    options: DomainOptions

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The tasks'."""
        return next(iter(self.tasks.values())).measures

    @property
    def selects_on_validation(self) -> bool:
        """Whether all tasks have such a part."""
        return all(task.dataset.validation is not None for task in self.tasks.values())

    @property
    def epochs(self) -> int:
        """Those of the classifiers, then the joint ones."""
        return self.options.joint.head_epochs + self.recipe.epochs

    @property
    def partial_steps(self) -> bool:
        """Whether steps leave some parameters out."""
        return self.options.joint.sampler != "all" or self.options.joint.head_epochs > 0

    def check(self, net: nn.Module) -> None:
        """By each domain's task."""
        check_outputs(net, self.tasks)

    def start(self, fabric: Fabric, net: nn.Module) -> Course:
        """One process's part."""
        return _Course(self, fabric, net)


class _Course(Course):
    def __init__(self, job: _Job, fabric: Fabric, net: nn.Module) -> None:
        recipe, joint = job.recipe, job.options.joint
        batches = {
            name: task.batches(
                "train",
                fabric.device,
                batch_size=recipe.batch_size,
                seed=job.seed,
                augment=Augment(recipe.crop_padding, recipe.flip),
            )
            for name, task in job.tasks.items()
        }
        sizes = {name: len(task.dataset.train) for name, task in job.tasks.items()}
        steps = JointSteps(fabric, net, job.tasks, recipe, joint, job.options.aggregator)
        super().__init__(steps, DomainBatches(batches, sizes, joint, job.seed, job.epochs))
        self._joint_steps = steps
        self._evaluations = {
            name: Evaluations(task, fabric, name) for name, task in job.tasks.items()
        }

    def measure(self, trained: Trained) -> Values:
        weights = self._joint_steps.weights()
        return by_domain(
            {
                name: {**trained.values[name], **found.now(self.steps), "weight": weights[name]}
                for name, found in self._evaluations.items()
            }
        )

    def final(self) -> Values:
        found = self._evaluations.items()
        return by_domain({name: each.of_training(self.steps) for name, each in found})


def by_domain(values: Mapping[str, Values]) -> Values:
    """Columns of the domains' means, and of each domain; "weight" has no mean."""
    columns = dict.fromkeys(column for given in values.values() for column in given)
    means = {
        column: _mean(given[column] for given in values.values() if column in given)
        for column in columns
        if column != "weight"
    }
    each = {
        f"{column}/{name}": value
        for name, given in values.items()
        for column, value in given.items()
    }
    return means | each


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
