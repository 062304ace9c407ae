"""What `train_together` takes and shows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.data import Data
from weightfold.tasks.task import Task
from weightfold.train.history import Row
from weightfold.train.strategies.stack import Stack

EVALUATION_BATCH, EVALUATION_VALUES = 1000, 2**22
"""Examples measured at once, at most, and the values of their inputs, about."""


@dataclass(frozen=True)
class Start:
    """What one run starts from.

    Attributes:
        net: With its initial weights; holds the final ones afterwards.
        data: The task, or data to classify; runs may share it, else theirs have equal sizes and
            shapes.
        seed: Of data order, augmentation and dropout.
    """

    net: nn.Module
    data: Task | Data
    seed: int


@dataclass(frozen=True)
class View:
    """Runs that are trained together, at a measurement.

    Attributes:
        names: Of the runs, in the order of every first dimension.
        step: Steps taken.
        epoch: Whole passes over the training set.
        rows: The measurement of each run.
    """

    names: tuple[str, ...]
    step: int
    epoch: int
    rows: tuple[Row, ...]
    _stack: Stack = field(repr=False)
    _tasks: tuple[Task, ...] = field(repr=False)

    def outputs(self, part: str) -> Iterator[tuple[Tensor, Any]]:
        """Outputs (runs, B, ...) in eval mode and targets, batch by batch in order."""
        return outputs_of(self._stack, self._tasks, part)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Copies of a run's parameters and buffers."""
        return self._stack.of(self.names.index(name))


class Observer:
    """Is shown the runs at every measurement; its state is part of the checkpoint.

    A subclass keeps what it needs in `state`: name -> tensor of all runs of a group or number.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def see(self, view: View) -> None:
        """A measurement was made."""
        raise NotImplementedError


def outputs_of(stack: Stack, tasks: tuple[Task, ...], part: str) -> Iterator[tuple[Tensor, Any]]:
    """Outputs (runs, B, ...) in eval mode and targets of a part, batch by batch.

    Targets are a tensor (runs, B, ...); of a single run whatever its task has, in a list.
    """
    parts = [task.dataset.parts[part] for task in tasks]
    shared = all(one.inputs is parts[0].inputs for one in parts)
    values = torch.Size(tasks[0].dataset.shape).numel()
    size = max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // max(1, values)))
    for order in torch.arange(len(parts[0])).split(size):
        inputs = []
        for task, examples in zip(tasks[:1] if shared else tasks, parts, strict=False):
            place = examples.inputs.device
            inputs.append(task.dataset.normalize(next(iter(examples.read([order.to(place)])))))
        x = inputs[0] if shared else torch.stack(inputs)
        yield stack.outputs(x, shared=shared), together([one.targets_at(order) for one in parts])


def together(targets: list[Any]) -> Any:
    """Targets of several runs as one tensor (runs, B, ...), where they are tensors."""
    return torch.stack(targets) if isinstance(targets[0], Tensor) else targets
