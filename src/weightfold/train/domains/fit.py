"""Training of one net on several domains."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from weightfold.core.arguments import checked_seed
from weightfold.data import Augment, Data
from weightfold.hints import check_arguments
from weightfold.tasks.measure import Measure
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.domains.check import check_all, check_domains, check_outputs
from weightfold.train.domains.objective import shared_net
from weightfold.train.domains.options import DomainOptions
from weightfold.train.domains.strategy import Domains
from weightfold.train.history import History, Row
from weightfold.train.launch import Training, run
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import describe
from weightfold.train.starts import begin
from weightfold.train.strategies.fabric import Fabric, OnFabric


def fit_domains(
    net: nn.Module,
    data: Mapping[str, Task | Data],
    recipe: Recipe,
    *,
    seed: int = 0,
    folder: Path | str | None = None,
    device: str = "auto",
    progress: bool | Callable[[Row], None] = True,
    options: DomainOptions | None = None,
) -> History:
    """Train a net on all its domains and leave its record in a folder.

    >>> import torch, weightfold as wf
    >>> model = wf.nets.build("digitnet", num_classes=10, in_channels=1)
    >>> plan = wf.plan_sharing(model, "bottom", 0.2, example_input=torch.zeros(1, 1, 8, 8))
    >>> net = wf.share(model, {"ours": 10, "theirs": 10}, plan)
    >>> data = wf.data.load("digits,limit=100")
    >>> recipe = wf.Recipe(epochs=1)
    >>> history = wf.fit_domains(net, {"ours": data, "theirs": data}, recipe, progress=False)
    >>> [name for name in history.rows[-1].values if name.startswith("test_accuracy/")]
    ['test_accuracy/ours', 'test_accuracy/theirs']

    The loss of a step is the weighted sum, over the domains in it, of each one's mean loss; all of
    them run in one forward. Domains that are not in a step stay bit for bit: no gradient, no decay,
    no momentum. Folder, resuming, randomness and the caller's random state are as in
    `weightfold.train.fit`, with values of every domain.

    Args:
        net: A SharedNet, or a Charted net over one. Its `about` gets how each domain is fed.
        data: Domain -> task, or data to classify, for every domain; sizes of inputs may differ. A
            task's own `augment` takes the place of the recipe's: digits and signs must not be
            mirrored, `Augment(flip=False)`.
        recipe: Every hyperparameter; `batch_size` is of each domain, decay is on psi.
        seed: Of data order, augmentation, validation split, sampler and dropout.
        folder: As for `fit`.
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
    checked_seed(seed)
    check_arguments(fit_domains, recipe=recipe, folder=folder, progress=progress)
    options = domain_options(options)
    joint = options.joint
    tasks = {name: as_task(given) for name, given in data.items()}
    domains = check_domains(net, tasks)
    check_all(tasks, domains, "data")
    if isinstance(joint.loss_weights, Mapping):
        check_all(joint.loss_weights, domains, "loss_weights")
    if recipe.penalizes_theta:
        raise ValueError(
            f"decay_on={recipe.decay_on!r} would move absent domains; use decay_on='psi'"
        )
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
    begin(net, options.start)
    about = shared_net(net).about
    for name, task in tasks.items():
        if (told := task.dataset.preprocessing) is not None:
            about[name] = about.get(name, {}) | told.record()
    configuration = (
        {}
        if folder is None
        else describe(
            net,
            recipe,
            seed=seed,
            options=options,
            tasks={name: task.identity() for name, task in tasks.items()},
            joint=asdict(joint),
            aggregator=_text_of(options.aggregator),
        )
    )
    training = _Domains(
        recipe=recipe,
        folder=None if folder is None else Path(folder),
        configuration=configuration,
        seed=seed,
        progress=progress,
        options=options,
        tasks=tasks,
    )
    return run(training, net, device)


def _text_of(aggregator: Any) -> str | None:
    """What it calls itself, without the address that differs from one process to the next."""
    return None if aggregator is None else re.sub(r" at 0x\w+", "", repr(aggregator))


@dataclass(frozen=True)
class _Domains(Training):
    """What `fit_domains` was given."""

    tasks: Mapping[str, Task]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The tasks'."""
        return next(iter(self.tasks.values())).measures

    @property
    def partial_steps(self) -> bool:
        """Whether steps leave some parameters out."""
        joint = domain_options(self.options).joint
        return joint.sampler != "all" or joint.head_epochs > 0

    def check(self, net: nn.Module) -> None:
        """By each domain's task."""
        check_outputs(net, self.tasks, self.recipe.batch_size)

    def strategy(self, fabric: Fabric, net: nn.Module) -> OnFabric:
        """In one process."""
        options = domain_options(self.options)
        return Domains(fabric, net, self.tasks, self.recipe, self.seed, options)


def domain_options(options: Options | None) -> DomainOptions:
    """Those given; the defaults for None.

    Raises:
        TypeError: They are others.
    """
    if options is None:
        return DomainOptions()
    if not isinstance(options, DomainOptions):
        raise TypeError(f"options is {type(options).__name__}; give DomainOptions")
    return options
