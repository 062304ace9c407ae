"""Classification: cross-entropy and top-1 accuracy."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.tasks.distillation import Distillation, distilled
from weightfold.tasks.measure import ACCURACY
from weightfold.tasks.outputs import auxiliary, tensor_of
from weightfold.tasks.registry import register
from weightfold.tasks.task import Task, Terms


@register("classify")
@dataclass(frozen=True, eq=False)
class Classification(Task):
    """Cross-entropy with class labels, judged by top-1 accuracy.

    Targets are int64 (N,); or (N, ...), one label a pixel, each example's loss then the mean over
    its pixels. Models give logits (B, classes), or (B, classes, ...).

    Attributes:
        label_smoothing: Share of each label spread over all classes in training, in [0, 1).
        output: Which of several outputs the logits are, see `weightfold.tasks.outputs.tensor_of`.
        aux_weight: Of the loss of each auxiliary classifier, in training: 0.3 as GoogLeNet's
            (Szegedy et al. 2015, section 5).
        teacher: Distill from this network, in eval mode; a copy is used.
        distillation: How; given with `teacher`.

    Raises:
        ValueError: The data has no class labels, training labels are all of one class, or only one
            of `teacher` and `distillation` is given.
    """

    label_smoothing: float = 0.0
    output: str | int | None = None
    aux_weight: float = 0.3
    teacher: nn.Module | None = None
    distillation: Distillation | None = None
    _teachers: dict[torch.device, nn.Module] = field(default_factory=dict, init=False, repr=False)

    measures = (ACCURACY,)

    def __post_init__(self) -> None:
        classes, targets = self.dataset.num_classes, self.dataset.train.targets
        if not classes:
            given = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
            raise ValueError(
                f"data={self.dataset.name!r} has no class labels (num_classes=0), its targets are "
                f"{given}; give int64 class labels, or another task, such as "
                "weightfold.tasks.build('regress', data)"
            )
        if classes < 2 or (isinstance(targets, Tensor) and len(targets.unique()) < 2):
            raise ValueError(
                f"{self.dataset.name}: the training labels are all of one class; give at least two "
                "classes"
            )
        if (self.teacher is None) != (self.distillation is None):
            raise ValueError("teacher and distillation go together: give both or neither")

    @property
    def stackable(self) -> bool:
        """Not with a teacher."""
        return self.teacher is None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.dataset.num_classes

    def read(self, outputs: Any) -> Tensor:
        """The logits."""
        return tensor_of(outputs, self.output)

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """Cross-entropy of each example."""
        return _mean(F.cross_entropy(outputs, targets, reduction="none"))

    def scores(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """Whether each example's highest logit is its label's; a tie goes to the first."""
        return {"accuracy": _mean((outputs.argmax(dim=1) == targets).float())}

    def objective(self, net: Callable[..., Any], inputs: Tensor, targets: Any) -> Terms:
        """Smoothed, with auxiliary classifiers and a teacher where there are any."""
        found = net(inputs)
        outputs = self.read(found)
        losses = self._smoothed(outputs, targets)
        for other in auxiliary(found):
            losses = losses + self.aux_weight * self._smoothed(other, targets)
        if self.teacher is not None and self.distillation is not None:
            losses = distilled(losses, outputs, self._teach(inputs), self.distillation)
        return Terms(losses, self.scores(outputs.detach(), targets))

    def _smoothed(self, outputs: Tensor, targets: Any) -> Tensor:
        share = self.label_smoothing
        return _mean(F.cross_entropy(outputs, targets, reduction="none", label_smoothing=share))

    @torch.no_grad()
    def _teach(self, inputs: Tensor) -> Tensor:
        if inputs.device not in self._teachers:
            teacher = copy.deepcopy(self.teacher)
            assert teacher is not None
            self._teachers[inputs.device] = teacher.eval().requires_grad_(False).to(inputs.device)
        return self.read(self._teachers[inputs.device](inputs)).float()

    def with_smoothing(self, share: float) -> Self:
        """The task with a share of each label spread over all classes."""
        return replace(self, label_smoothing=share) if share else self

    def wanted(self, targets: Any) -> tuple[int, ...]:
        """(B, classes, ...)."""
        return (len(targets), self.classes, *targets.shape[1:])

    def baseline(self) -> float:
        """Test accuracy of always naming the class most frequent in training."""
        train, test = self.dataset.train.targets, self.dataset.test.targets
        assert isinstance(train, Tensor)
        return (test == train.flatten().bincount().argmax()).double().mean().item()


def _mean(values: Tensor) -> Tensor:
    """(B,), the mean over whatever dimensions follow."""
    return values.flatten(1).mean(dim=1) if values.dim() > 1 else values
