"""Semantic segmentation: a class for every pixel, judged by intersection over union."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import draw_segmentation_masks

from weightfold.data.batches import Augment, Augmentation
from weightfold.data.dataset import VOID
from weightfold.data.joint import JointAugment
from weightfold.tasks.measure import Measure
from weightfold.tasks.outputs import auxiliary, tensor_of
from weightfold.tasks.registry import register
from weightfold.tasks.task import Task, Terms

MEDIAN_FREQUENCY = "median_frequency"


@register("segment")
@dataclass(frozen=True, eq=False)
class Segmentation(Task):
    """Cross-entropy of every pixel, judged by mean intersection over union.

    Targets are masks of class labels, uint8 (N, H, W), with `weightfold.data.VOID` (255) at pixels
    of no class, which are neither learnt nor judged. Models give logits (B, classes, H, W).

    IoU, recall and precision are those of the whole part of the data, of each class over all its
    pixels; their means are over the classes that occur there or are predicted.

    Attributes:
        class_weights: By what a pixel's loss is multiplied, of each class; None: by 1. As a text,
            "median_frequency": median of all classes' frequencies by that of the class, where a
            frequency is the class's share of the pixels of the images that it is in (Eigen and
            Fergus 2015, section 6.3.2).
        summed: An image's loss is the sum over its pixels, as a rate of 1e-8 makes sense with, in
            place of the mean.
        output: Which of several outputs the logits are, see `weightfold.tasks.outputs.tensor_of`.
        aux_weight: Of the loss of each auxiliary classifier, in training: 0.5 as torchvision's.

    Raises:
        ValueError: The data has no masks, not one weight a class, or a weight that is not positive.
    """

    class_weights: tuple[float, ...] | str | None = None
    summed: bool = False
    output: str | int | None = None
    aux_weight: float = 0.5

    measures = (
        Measure("miou", "mean intersection over union", share=True, of_part=True),
        Measure("recall", "mean recall of the classes", share=True, of_part=True),
        Measure("precision", "mean precision of the classes", share=True, of_part=True),
        Measure("pixel_accuracy", "share of pixels that are right", share=True),
    )

    def __post_init__(self) -> None:
        data = self.dataset
        for part, examples in data.parts.items():
            targets = examples.targets
            masks = isinstance(targets, Tensor) and targets.dtype == torch.uint8
            if not (masks and data.num_classes and targets.shape[1:] == data.shape[1:]):
                given = (
                    f"{targets.dtype} {tuple(targets.shape)}"
                    if isinstance(targets, Tensor)
                    else "a sequence"
                )
                raise ValueError(
                    f"{data.name}: {part} targets are {given}; task 'segment' takes masks of class "
                    f"labels, uint8 (N, {', '.join(map(str, data.shape[1:]))}), and num_classes"
                )
        if isinstance(self.class_weights, str):
            if self.class_weights != MEDIAN_FREQUENCY:
                raise ValueError(
                    f"class_weights={self.class_weights!r}; give one number a class, or "
                    f"{MEDIAN_FREQUENCY!r}"
                )
            weights = median_frequency(data.train.targets, data.num_classes)
            object.__setattr__(self, "class_weights", tuple(weights.tolist()))
        elif self.class_weights is not None and (
            len(self.class_weights) != data.num_classes or min(self.class_weights) <= 0
        ):
            raise ValueError(
                f"class_weights={self.class_weights}: give {data.num_classes} numbers above 0"
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.dataset.num_classes

    def read(self, outputs: Any) -> Tensor:
        """The logits."""
        return tensor_of(outputs, self.output)

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """Of each image, over those pixels that have a class; 0 where none has."""
        weights = None
        if self.class_weights is not None:
            weights = outputs.new_tensor(self.class_weights)
        pixels = F.cross_entropy(
            outputs, targets.long(), weight=weights, ignore_index=VOID, reduction="none"
        ).flatten(1)
        total = pixels.sum(dim=1)
        known = (targets != VOID).flatten(1).sum(dim=1)
        return total if self.summed else total / known.clamp_min(1)

    def scores(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """Of each image, the share of its pixels with a class that are right; 1 where none has."""
        known = (targets != VOID).flatten(1)
        right = ((outputs.argmax(dim=1) == targets).flatten(1) & known).sum(dim=1)
        shares = right / known.sum(dim=1).clamp_min(1)
        return {"pixel_accuracy": torch.where(known.any(dim=1), shares, 1.0)}

    def metrics(self) -> Mapping[str, Any]:
        """Of torchmetrics: every class over all its pixels, then their mean."""
        try:
            from torchmetrics.classification import (
                MulticlassJaccardIndex,
                MulticlassPrecision,
                MulticlassRecall,
            )
        except ImportError as error:
            raise ImportError(
                "task 'segment' needs torchmetrics: pip install 'weightfold[train]'"
            ) from error
        kinds = {
            "miou": MulticlassJaccardIndex,
            "recall": MulticlassRecall,
            "precision": MulticlassPrecision,
        }
        return {
            name: kind(self.classes, average="macro", ignore_index=VOID, validate_args=False)
            for name, kind in kinds.items()
        }

    def objective(self, net: Callable[..., Any], inputs: Tensor, targets: Any) -> Terms:
        """With auxiliary classifiers where there are any."""
        found = net(inputs)
        outputs = self.read(found)
        losses = self.losses(outputs, targets)
        for other in auxiliary(found):
            losses = losses + self.aux_weight * self.losses(other, targets)
        return Terms(losses, self.scores(outputs.detach(), targets))

    def drawn(self, image: Tensor, target: Any, outputs: Tensor | None = None) -> Tensor:
        """As in `Task`: a colour a class; pixels of no class stay as they are."""
        mask = target if outputs is None else outputs[0].argmax(dim=0)
        masks = mask == torch.arange(self.classes)[:, None, None]
        colours: Any = list(map(tuple, _colours(self.classes).tolist()))
        return draw_segmentation_masks(image, masks, alpha=0.6, colors=colours)

    def wanted(self, targets: Any) -> tuple[int, ...]:
        """(B, classes, H, W)."""
        return (len(targets), self.classes, *targets.shape[1:])

    def augmented(self, augment: Augmentation | None) -> Augmentation | None:
        """As in `Task`; masks move with their images."""
        augment = super().augmented(augment)
        if isinstance(augment, Augment):
            augment = JointAugment(flip=augment.flip, crop_padding=augment.crop_padding)
        return augment

    def baseline(self) -> float:
        """Test IoU of always naming the class most frequent in training."""
        common = _counts(self.dataset.train.targets, self.classes).argmax()
        counts = _counts(self.dataset.test.targets, self.classes)
        counted = (counts > 0) | (torch.arange(self.classes) == common)
        return (counts[common] / (counts.sum() * counted.sum())).item()


def _counts(masks: Tensor, classes: int) -> Tensor:
    """Pixels of each class, float64 (classes,)."""
    return masks.flatten().bincount(minlength=VOID + 1)[:classes].double().cpu()


def _colours(classes: int) -> Tensor:
    """RGB from 0 to 255, (classes, 3), as far apart as VOC's: bits of the number, highest first."""
    numbers = torch.arange(1, classes + 1)
    bits = [(numbers >> (3 * i + c) & 1) << (7 - i) for c in range(3) for i in range(3)]
    return torch.stack(bits).view(3, 3, classes).sum(dim=1).T


def median_frequency(masks: Tensor, classes: int) -> Tensor:
    """Weight of each class, float64 (classes,); 1 for classes that do not occur.

    Args:
        masks: uint8 (N, H, W), `VOID` where there is no class.
        classes: Number of classes.
    """
    each = torch.stack([_counts(mask, classes) for mask in masks])
    known = each.sum(dim=1, keepdim=True)
    frequency = each.sum(dim=0) / ((each > 0) * known).sum(dim=0).clamp_min(1)
    occurs = frequency > 0
    return torch.where(occurs, frequency[occurs].median() / frequency, 1.0)
