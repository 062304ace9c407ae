"""Regression: squared loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weightfold.tasks.measure import Measure
from weightfold.tasks.outputs import tensor_of
from weightfold.tasks.registry import register
from weightfold.tasks.task import Task


@register("regress")
@dataclass(frozen=True, eq=False)
class Regression(Task):
    """Squared error, its mean over the values of a target; judged by it and by absolute error.

    Targets are floating point, (N,) or (N, ...). Models give outputs of their shape; for targets
    (N,) also (B, 1).

    Attributes:
        output: Which of several outputs is meant, see `weightfold.tasks.outputs.tensor_of`.

    Raises:
        ValueError: The targets are not floating point, or not finite.
    """

    output: str | int | None = None

    measures = (
        Measure("mse", "mean squared error", higher_is_better=False),
        Measure("mae", "mean absolute error", higher_is_better=False),
    )

    def __post_init__(self) -> None:
        for part, examples in self.dataset.parts.items():
            targets = examples.targets
            if not isinstance(targets, Tensor) or not targets.is_floating_point():
                given = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
                raise ValueError(
                    f"{self.dataset.name}: {part} targets are {given}; task 'regress' takes a "
                    "floating point tensor"
                )
            if not targets.isfinite().all():
                raise ValueError(f"{self.dataset.name}: {part} targets are not all finite")

    def read(self, outputs: Any) -> Tensor:
        """The predicted values."""
        return tensor_of(outputs, self.output)

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """Squared error of each example."""
        return _values(_aligned(outputs, targets) - targets).square().mean(dim=1)

    def scores(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """Squared and absolute error of each example."""
        errors = _values(_aligned(outputs, targets) - targets)
        return {"mse": errors.square().mean(dim=1), "mae": errors.abs().mean(dim=1)}

    def wanted(self, targets: Any) -> tuple[int, ...]:
        """That of the targets; (B, 1) for (B,)."""
        return tuple(targets.shape) if targets.dim() > 1 else (len(targets), 1)

    def check_outputs(self, net: torch.nn.Module, outputs: Any, targets: Any) -> None:
        """As in `Task`; (B,) is as good as (B, 1)."""
        alone = isinstance(outputs, Tensor) and outputs.dim() == targets.dim() == 1
        super().check_outputs(net, outputs[:, None] if alone else outputs, targets)

    def baseline(self) -> float:
        """Test error of always giving the mean of the training targets."""
        train, test = self.dataset.train.targets, self.dataset.test.targets
        assert isinstance(train, Tensor) and isinstance(test, Tensor)
        return (test.double() - train.double().mean(dim=0)).square().mean().item()


def _aligned(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.squeeze(1) if outputs.dim() == targets.dim() + 1 else outputs


def _values(errors: Tensor) -> Tensor:
    """(B, values)."""
    return errors.flatten(1) if errors.dim() > 1 else errors[:, None]
