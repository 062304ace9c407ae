"""Knowledge distillation: a teacher's term in the loss of classification."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Distillation:
    """Knowledge distillation (Hinton, Vinyals and Dean 2015, section 2).

    The loss is (1 - weight) * cross-entropy + weight * T^2 * KL(teacher at T || student at T).
    ExpandNets' own temperature and weight are not known; these defaults are ours.

    Raises:
        ValueError: A value is out of range.
    """

    temperature: float = 4.0
    """T: both networks' logits are divided by it."""

    weight: float = 0.9
    """Share of the teacher's term in the loss, in (0, 1]."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature={self.temperature!r}: it must be a number above 0")
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight={self.weight!r} of the distillation: it must be in (0, 1]")


def distilled(
    hard: "Tensor", logits: "Tensor", teacher_logits: "Tensor", distillation: Distillation
) -> "Tensor":
    """The loss of each example with the teacher's term, (B,).

    Args:
        hard: (B,), the loss by the labels.
        logits: (B, classes), the student's.
        teacher_logits: (B, classes), without gradient.
        distillation: Temperature and weight.
    """
    import torch.nn.functional as F

    t = distillation.temperature
    soft = F.kl_div(
        F.log_softmax(logits / t, dim=1),
        F.log_softmax(teacher_logits / t, dim=1),
        log_target=True,
        reduction="none",
    ).sum(dim=1)
    return (1 - distillation.weight) * hard + distillation.weight * t**2 * soft
