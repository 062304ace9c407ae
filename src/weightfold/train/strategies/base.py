"""What the loop needs of whatever takes its steps."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from weightfold.tasks.task import Task, Terms
from weightfold.train.recipe import Recipe
from weightfold.train.seeding import mixed_seed

Columns = dict[str, float | None]


class Strategy(ABC):
    """Networks that take optimizer steps on their data: one or several runs.

    A subclass is one way to do it: one network on Fabric, many stacked, one on many domains.

    Attributes:
        recipe: Every hyperparameter.
        rank: Of this process.
        world: Number of processes.
        optimizer: Of all that is trained.
        names: Of the runs.
        domains: Names of the domains of a run, "" for the only one.
        scores: Names of what a step counts beside the loss.
        seeds: Of the runs, and of what else the random numbers of a step depend on.
    """

    rank: int = 0
    world: int = 1
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    names: tuple[str, ...] = ("",)
    domains: tuple[str, ...] = ("",)
    scores: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """On which the steps are taken."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.recipe.epochs

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The parts of the data there are."""

    def lr(self, at: int) -> float:
        """The learning rate of the step after `at` steps."""
        return self.recipe.lr_at(at, self.steps_per_epoch)

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """The batches of an epoch from its batch `first` on: a function of these two alone."""

    @abstractmethod
    def step(self, batch: Any, lr: float) -> Tensor:
        """One optimizer step of every run, in train mode.

        Returns:
            (runs, domains, 2 + scores): what `count` gives, of this process, on any device.
        """

    @abstractmethod
    def evaluate(self, part: str) -> list[Columns]:
        """Of each run, in eval mode: the mean loss and every measure on a part of the data."""

    @abstractmethod
    def outputs(self, part: str) -> Iterator[tuple[Any, Any]]:
        """Outputs in eval mode and targets of a part, batch by batch in order: (runs, B, ...).

        What is no tensor is a list of so many runs.
        """

    @abstractmethod
    def tensors(self, index: int) -> dict[str, Tensor]:
        """Copies of a run's parameters and buffers by name."""

    @abstractmethod
    def state_of(self, index: int) -> dict[str, Tensor]:
        """A run's state_dict."""

    @abstractmethod
    def trained(self, index: int) -> Mapping[str, Tensor]:
        """A run's trainable tensors by name."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; "optimizer" is the optimizer's."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; "optimizer" may be None."""

    def columns(self) -> Columns:
        """Further values of a row."""
        return {}

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027
        """An epoch begins, or is gone on with."""

    def finish(self) -> None:  # noqa: B027
        """The loop is left, by an exception too: the caller's networks hold the final state."""

    def barrier(self) -> None:  # noqa: B027
        """Wait for the other processes."""

    def total(self, counts: Tensor) -> Tensor:
        """The sum over all processes."""
        return counts

    def seed(self, at: int) -> None:
        """Seed torch's random numbers for the step after `at` steps."""
        # Without the search for accelerators of `torch.manual_seed`.
        seed = mixed_seed(*self.seeds, at, self.rank)
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


def mean_scores(task: Task) -> tuple[str, ...]:
    """Names of the measures that are means over examples, which training steps count."""
    measures = () if task.model_computes_loss else task.measures
    return tuple(measure.name for measure in measures if not measure.of_part)


def count(terms: Terms, seen: int, scores: tuple[str, ...]) -> Tensor:
    """(2 + scores,): examples, and their losses and scores summed."""
    losses = terms.losses.detach()
    loss = losses.sum() if losses.dim() else losses * seen
    return torch.stack(
        [torch.full_like(loss, seen), loss, *(terms.scores[name].sum() for name in scores)]
    )
