"""Training of one net on several domains."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from weightfold.data import Augment, Dataset
from weightfold.train.domains.check import check_all, check_domains
from weightfold.train.domains.feed import DomainBatches
from weightfold.train.domains.history import DomainsHistory, DomainsRow
from weightfold.train.domains.joint import Joint
from weightfold.train.domains.steps import Aggregator, JointSteps
from weightfold.train.drive import Accuracies, Course, Job, Precision, run
from weightfold.train.feed import set_aside, training_batches
from weightfold.train.recipe import Recipe
from weightfold.train.record import describe, describe_data
from weightfold.train.steps import Fabric, Trained


def fit_domains(
    net: nn.Module,
    datasets: Mapping[str, Dataset],
    recipe: Recipe,
    *,
    folder: Path | str,
    seed: int,
    joint: Joint | None = None,
    augment: Mapping[str, Augment] | None = None,
    aggregator: Aggregator | None = None,
    validation: int | float = 0,
    device: str = "auto",
    precision: Precision = "32-true",
    devices: int = 1,
    resume: bool = True,
    progress: bool | Callable[[DomainsRow], None] = True,
    tensorboard: bool = False,
    about: Mapping[str, Any] | None = None,
) -> DomainsHistory:
    """Train a net on all its domains and leave its record in a folder.

    The loss of a step is the weighted sum, over the domains in it, of each one's mean
    cross-entropy; all of them run in one forward. Domains that are not in a step stay bit for bit:
    no gradient, no decay, no momentum. Folder, resuming, randomness and the caller's random state
    are as in `weightfold.train.fit`, with figures of every domain.

    Args:
        net: A SharedNet, or a Charted net over one.
        datasets: Domain -> data, for every domain; sizes of images may differ.
        recipe: Every hyperparameter; `batch_size` is of each domain, decay is on psi.
        folder: Where the record goes; made if missing.
        seed: Of data order, augmentation, validation split, sampler and dropout.
        joint: How the domains are trained together; None: `Joint()`.
        augment: Domain -> augmentation in place of the recipe's: digits and signs must not be
            mirrored, `Augment(flip=False)`.
        aggregator: Combines the domains' gradients of what they share: from the Jacobian (domains,
            shared parameters) of the terms of the loss to a gradient (shared parameters,), such as
            those of TorchJD's `torchjd.aggregation`. What one domain owns gets its own gradient.
            Takes one backward pass a domain. A state it keeps is not resumed.
        validation: As for `fit`, of each domain.
        device: As for `fit`.
        precision: As for `fit`; "16-mixed" not with an aggregator.
        devices: As for `fit`; 1 with an aggregator.
        resume: As for `fit`.
        progress: True for a progress bar with a line for each domain; or a function called with
            each epoch's row.
        tensorboard: As for `fit`.
        about: As for `fit`.

    Returns:
        The history of all epochs, earlier sessions' included.

    Raises:
        FileExistsError: As `fit`.
        KeyError: Data for a domain the net has not.
        NonFiniteLoss: A domain's loss became NaN or infinite.
        TypeError: `net` has no domains.
        ValueError: An argument is out of range; a domain without data, or with data of another
            number of classes than the net's.
    """
    joint, augment = joint or Joint(), augment or {}
    domains = check_domains(net, datasets)
    check_all(datasets, domains, "datasets")
    if isinstance(joint.loss_weights, Mapping):
        check_all(joint.loss_weights, domains, "loss_weights")
    for name in augment:
        if name not in domains:
            raise KeyError(f"augment has {name!r}; the net's domains are {', '.join(domains)}")
    if recipe.decay_on == "theta" and recipe.weight_decay:
        raise ValueError("decay_on='theta' would move absent domains; use decay_on='psi'")
    _check_aggregator(aggregator, joint, precision, devices)
    smallest = min(recipe.batch_size // 2, *(len(d.train) for d in datasets.values()))
    if not 1 <= devices <= max(1, smallest):
        raise ValueError(
            f"devices={devices}: it must be between 1 and half of batch_size, and no domain may "
            "have fewer training images"
        )
    configuration = describe(
        net,
        recipe,
        seed=seed,
        validation=validation,
        precision=precision,
        about=about or {},
        datasets={name: describe_data(datasets[name]) for name in domains},
        joint=asdict(joint),
        augment={name: asdict(given) for name, given in augment.items()},
        aggregator=_text_of(aggregator),
    )
    job = _Job(
        recipe=recipe,
        folder=Path(folder),
        configuration=configuration,
        seed=seed,
        validation=validation,
        progress=progress,
        tensorboard=tensorboard,
        datasets={name: datasets[name] for name in domains},
        joint=joint,
        augment=dict(augment),
        aggregator=aggregator,
    )
    return run(job, net, device=device, precision=precision, devices=devices, resume=resume)


def _check_aggregator(
    aggregator: Aggregator | None, joint: Joint, precision: Precision, devices: int
) -> None:
    if aggregator is None:
        return
    for argument, given, wanted in (
        ("sampler", joint.sampler, "all"),
        ("shared_gradient", joint.shared_gradient, "sum"),
        ("devices", devices, 1),
    ):
        if given != wanted:
            raise ValueError(f"{argument}={given!r} with an aggregator: it must be {wanted!r}")
    if precision == "16-mixed":
        raise ValueError("precision='16-mixed' with an aggregator: use '32-true' or 'bf16-mixed'")


def _text_of(aggregator: Aggregator | None) -> str | None:
    """What it calls itself, without the address that differs from one process to the next."""
    return None if aggregator is None else re.sub(r" at 0x\w+", "", repr(aggregator))


@dataclass(frozen=True)
class _Job(Job[DomainsHistory]):
    """What `fit_domains` was given."""

    datasets: dict[str, Dataset]
    joint: Joint
    augment: dict[str, Augment]
    aggregator: Aggregator | None

    @property
    def history_type(self) -> type[DomainsHistory]:
        """By domain."""
        return DomainsHistory

    @property
    def epochs(self) -> int:
        """Those of the classifiers, then the joint ones."""
        return self.joint.head_epochs + self.recipe.epochs

    @property
    def partial_steps(self) -> bool:
        """Whether steps leave some parameters out."""
        return self.joint.sampler != "all" or self.joint.head_epochs > 0

    def start(self, fabric: Fabric, net: nn.Module) -> Course:
        """One process's part."""
        return _Course(self, fabric, net)


class _Course(Course):
    def __init__(self, job: _Job, fabric: Fabric, net: nn.Module) -> None:
        parts = {n: set_aside(d, job.validation, job.seed) for n, d in job.datasets.items()}
        batches = {
            name: training_batches(
                parts[name][0],
                dataset,
                job.recipe,
                job.seed,
                fabric.device,
                job.augment.get(name, "recipe"),
            )
            for name, dataset in job.datasets.items()
        }
        sizes = {name: len(train) for name, (train, _) in parts.items()}
        shapes = {name: train.image_shape for name, (train, _) in parts.items()}
        steps = JointSteps(fabric, net, shapes, job.recipe, job.joint, job.aggregator)
        super().__init__(steps, DomainBatches(batches, sizes, job.joint, job.seed, job.epochs))
        self._joint_steps = steps
        self._accuracies = {
            name: Accuracies(steps, name, dataset, *parts[name])
            for name, dataset in job.datasets.items()
        }

    def measure(self, trained: Trained) -> dict[str, Any]:
        weights = self._joint_steps.weights()
        domains = {
            name: {**trained.figures[name], **accuracies.now(), "weight": weights[name]}
            for name, accuracies in self._accuracies.items()
        }
        figures = ("train_loss", "train_error", "test_accuracy", "validation_accuracy")
        return {
            **{figure: _mean([d[figure] for d in domains.values()]) for figure in figures},
            "domains": domains,
        }

    def final(self) -> dict[str, Any]:
        errors = {name: found.train_error() for name, found in self._accuracies.items()}
        return {"final_train_error": _mean(errors.values()), "final_train_errors": errors}


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
