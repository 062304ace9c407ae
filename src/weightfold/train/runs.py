"""What `train_together` takes, measures and returns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.data.samples import Samples
from weightfold.train.strategies.stack import Stack

EVALUATION_BATCH, EVALUATION_VALUES = 1000, 2**22
"""Examples measured at once, at most, and the values of their inputs, about."""


@dataclass(frozen=True)
class Start:
    """What one run starts from.

    Attributes:
        net: With its initial weights; holds the final ones afterwards.
        data: To train and measure on; runs may share it, else theirs have equal sizes and shapes.
        seed: Of data order, augmentation and dropout.
    """

    net: nn.Module
    data: Samples
    seed: int


@dataclass(frozen=True)
class Point:
    """A run measured after `step` optimizer steps; accuracies and errors are shares in [0, 1].

    Attributes:
        step: Steps taken; 0 is before the first.
        train_loss: Mean over the examples of the steps since the last point, as they were trained
            on; None at step 0.
        train_error: Share of these examples that were wrong.
        losses: Part of the data ("test", "validation", "train") -> mean loss in eval mode.
        accuracies: Part -> accuracy in eval mode.
    """

    step: int
    train_loss: float | None
    train_error: float | None
    losses: Mapping[str, float]
    accuracies: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """What became of a run.

    Attributes:
        name: As given.
        points: In order of steps.
        steps_per_epoch: Optimizer steps of a pass over the training set.
        failed: Where its loss became NaN or infinite; "" if it never did.
        seconds: Wall time of the runs trained with it, divided by their number.
    """

    name: str
    points: tuple[Point, ...]
    steps_per_epoch: int
    failed: str = ""
    seconds: float = 0.0

    @property
    def last(self) -> Point:
        """The last measurement."""
        return self.points[-1]


@dataclass(frozen=True)
class View:
    """Runs that are trained together, at a measurement.

    Attributes:
        names: Of the runs, in the order of every first dimension.
        step: Steps taken.
        epoch: Whole passes over the training set.
        points: The measurement of each run.
    """

    names: tuple[str, ...]
    step: int
    epoch: int
    points: tuple[Point, ...]
    _stack: Stack = field(repr=False)
    _data: tuple[Samples, ...] = field(repr=False)

    def logits(self, part: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (runs, B, classes) in eval mode and labels (runs, B), batch by batch in order."""
        return logits_of(self._stack, self._data, part)

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


def logits_of(
    stack: Stack, data: tuple[Samples, ...], part: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (runs, B, classes) in eval mode and labels (runs, B) of a part, batch by batch."""
    parts = [samples.parts[part] for samples in data]
    shared = all(one.x is parts[0].x for one in parts)
    size = max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // max(1, data[0].shape.numel())))
    for first in range(0, len(parts[0]), size):
        piece = slice(first, first + size)
        y = torch.stack([one.y[piece] for one in parts])
        if shared:
            x = data[0].inputs(parts[0].x[piece])
        else:
            x = torch.stack([d.inputs(o.x[piece]) for d, o in zip(data, parts, strict=True)])
        yield stack.logits(x, shared=shared), y
