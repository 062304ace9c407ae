"""What tasks of boxes share: their targets, trivial predictor, augmentation and pictures."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from weightfold.data.batches import Augment, Augmentation
from weightfold.data.joint import JointAugment
from weightfold.tasks.grid import Boxes
from weightfold.tasks.measure import Measure
from weightfold.tasks.precision import AveragePrecision
from weightfold.tasks.task import Task

_COLOURS = ("#FFD700", "#00BFFF", "#FF4500", "#7CFC00", "#FF69B4", "#FFFFFF")
_DRAWN, _SIDE = 0.3, 360

PRECISIONS = (
    Measure("map50", "mean average precision at IoU 0.5", share=True, of_part=True),
    Measure("map", "mean average precision, IoU 0.5 to 0.95", share=True, of_part=True),
    Measure("map50_voc07", "map50 by the 11 points of VOC 2007", share=True, of_part=True),
)


@dataclass(frozen=True, eq=False)
class OfBoxes(Task):
    """A task whose targets are boxes.

    Targets are a list of dicts: "boxes", float32 (M, 4) of left, top, right, bottom in pixels,
    "labels", int64 (M,), and perhaps "iscrowd", bool (M,): not learnt, and neither right nor wrong
    to find.

    Raises:
        ValueError: The data has no boxes, or no number of classes.
    """

    def __post_init__(self) -> None:
        data = self.dataset
        for part, examples in data.parts.items():
            target = examples.targets[0]
            if not (isinstance(target, Mapping) and {"boxes", "labels"} <= set(target)):
                raise ValueError(
                    f"{data.name}: {part} targets are {type(target).__name__}; task {self.name!r} "
                    'takes a list of dicts of "boxes" and "labels"'
                )
        if not data.num_classes:
            raise ValueError(
                f"{data.name}: num_classes=0; task {self.name!r} takes the number of them"
            )

    @property
    def stackable(self) -> bool:
        """Not: images have different numbers of boxes."""
        return False

    @abstractmethod
    def detect(self, outputs: Any) -> Boxes:
        """The boxes that a network finds, in pixels, best first.

        Args:
            outputs: As `read` returns them.
        """

    def metrics(self) -> Mapping[str, Any]:
        """Average precisions, of torchmetrics."""
        return {"map50": AveragePrecision(self.detect)}

    def drawn(self, image: Tensor, target: Any, outputs: Any = None) -> Tensor:
        """As in `Task`: boxes with their classes; of those found, the ones with scores above 0.3.

        Small images are enlarged, so that lines hide little.
        """
        boxes = target if outputs is None else self.detect(outputs)[0]
        if outputs is not None:
            good = boxes["scores"] > _DRAWN
            boxes = {name: values[good] for name, values in boxes.items()}
        times = max(1, _SIDE // min(image.shape[1:]))
        image = image.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
        names = self.dataset.class_names or tuple(map(str, range(self.dataset.num_classes)))
        labels = boxes["labels"].tolist()
        if not labels:
            return image
        return draw_bounding_boxes(
            image,
            (times * boxes["boxes"]).round(),
            labels=[names[label] for label in labels],
            colors=[_COLOURS[label % len(_COLOURS)] for label in labels],
            width=2,
        )

    def augmented(self, augment: Augmentation | None) -> Augmentation | None:
        """As in `Task`; boxes move with their images."""
        augment = super().augmented(augment)
        if isinstance(augment, Augment):
            augment = JointAugment(flip=augment.flip, crop_padding=augment.crop_padding)
        return augment

    def baseline(self) -> float:
        """Average precision of each class's mean training box, given for every image."""
        metric, classes = AveragePrecision(self.detect), self.dataset.num_classes
        train = self.dataset.train.targets
        boxes = torch.cat([target["boxes"] for target in train])
        labels = torch.cat([target["labels"] for target in train])
        known = [label for label in range(classes) if (labels == label).any()]
        means = torch.stack([boxes[labels == label].mean(dim=0) for label in known])
        guess = {"boxes": means, "labels": torch.tensor(known), "scores": torch.ones(len(known))}
        test = self.dataset.test.targets
        metric.compare([guess] * len(test), test)
        return float(metric.compute()["map50"])
