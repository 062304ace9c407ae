"""A toy: regression that outliers do not pull."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weightfold.tasks import Measure, Task, register


@register("toy-huber")
@dataclass(frozen=True, eq=False)
class Huber(Task):
    """Huber's loss, judged by the share of large errors."""

    measures = (Measure("far", "share of errors above 1", higher_is_better=False, share=True),)

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        return torch.nn.functional.huber_loss(outputs, targets, reduction="none").mean(dim=1)

    def scores(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        return {"far": ((outputs - targets).abs() > 1).float().mean(dim=1)}

    def wanted(self, targets: Any) -> tuple[int, ...]:
        return tuple(targets.shape)

    def baseline(self) -> float:
        return (self.dataset.test.targets.abs() > 1).float().mean().item()
