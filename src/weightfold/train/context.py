"""What callbacks are shown of the runs under way."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from weightfold.train.history import History, Row

if TYPE_CHECKING:
    from weightfold.train.strategies.base import Strategy


@dataclass(frozen=True)
class Context:
    """Runs that are trained together, after a step.

    Attributes:
        names: Of the runs, in the order of every first dimension; ("",) for the only one.
        step: Steps taken.
        epoch: Whole passes over the training set.
        histories: Of each run.
        ended: Whether each run has ended, at its end, early or by a failure.
        strategy: What takes the steps.
    """

    names: tuple[str, ...]
    step: int
    epoch: int
    histories: tuple[History, ...]
    ended: tuple[bool, ...]
    strategy: "Strategy"

    @property
    def rows(self) -> tuple[Row, ...]:
        """The last measurement of each run."""
        return tuple(history.rows[-1] for history in self.histories)

    def outputs(self, part: str) -> Iterator[tuple[Tensor, Any]]:
        """Outputs (runs, B, ...) in eval mode and targets, batch by batch in order.

        Targets are a tensor (runs, B, ...) or, where they differ in shape, a list of runs.
        """
        return self.strategy.outputs(part)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Copies of a run's parameters and buffers."""
        return self.strategy.tensors(self.names.index(name))
