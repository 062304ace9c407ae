"""Classification into any number of classes at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from weightfold.tasks.measure import Measure
from weightfold.tasks.outputs import tensor_of
from weightfold.tasks.registry import register
from weightfold.tasks.task import Task


@register("multilabel")
@dataclass(frozen=True, eq=False)
class MultiLabel(Task):
    """Binary cross-entropy of each label, judged by mean average precision.

    Targets are int64 (N, labels) of 0 and 1. Models give logits (B, labels).

    Attributes:
        output: Which of several outputs the logits are, see `weightfold.tasks.outputs.tensor_of`.

    Raises:
        ImportError: torchmetrics is not installed.
        ValueError: The targets are no such tensor.
    """

    output: str | int | None = None

    measures = (
        Measure("map", "mean average precision over labels", share=True, of_part=True),
        Measure("label_accuracy", "share of labels that are right", share=True),
        Measure("exact_match", "share of examples of which all labels are right", share=True),
    )

    def __post_init__(self) -> None:
        for part, examples in self.dataset.parts.items():
            t = examples.targets
            tensor = isinstance(t, Tensor) and t.dtype == torch.int64 and t.dim() == 2
            if not tensor or not ((t == 0) | (t == 1)).all():
                raise ValueError(
                    f"{self.dataset.name}: {part} targets do not fit task 'multilabel'; give an "
                    "int64 tensor (N, labels) of 0 and 1"
                )

    def read(self, outputs: Any) -> Tensor:
        """The logits."""
        return tensor_of(outputs, self.output)

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean binary cross-entropy of each example's labels."""
        labels = targets.to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(dim=1)

    def scores(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """Share of each example's labels that are right, and whether all are."""
        right = ((outputs > 0) == (targets == 1)).float()
        return {"label_accuracy": right.mean(dim=1), "exact_match": right.amin(dim=1)}

    def metrics(self) -> Mapping[str, Any]:
        """Average precision, of torchmetrics."""
        try:
            from torchmetrics.classification import MultilabelAveragePrecision
        except ImportError as error:
            raise ImportError(
                "task 'multilabel' needs torchmetrics: pip install 'weightfold[train]'"
            ) from error
        return {"map": MultilabelAveragePrecision(self.labels)}

    @property
    def labels(self) -> int:
        """Number of labels."""
        targets = self.dataset.train.targets
        assert isinstance(targets, Tensor)
        return targets.shape[1]

    def wanted(self, targets: Any) -> tuple[int, ...]:
        """(B, labels)."""
        return tuple(targets.shape)

    def baseline(self) -> float:
        """Mean average precision of a constant: the labels' mean share of test examples."""
        test = self.dataset.test.targets
        assert isinstance(test, Tensor)
        return test.double().mean().item()
