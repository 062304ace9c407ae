"""Detectors that compute their own losses, as torchvision's, judged by average precision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from weightfold.tasks.boxes import PRECISIONS, OfBoxes
from weightfold.tasks.grid import Boxes
from weightfold.tasks.measure import Measure
from weightfold.tasks.registry import register
from weightfold.tasks.task import Terms

_KEYS = {"boxes", "scores", "labels"}


@register("detector")
@dataclass(frozen=True, eq=False)
class Detector(OfBoxes):
    """Boxes by a model that computes its own losses, as torchvision's SSDLite.

    In train mode the model is called with images and targets and gives a dict of losses, which are
    summed; in eval mode, with images, it gives a dict of "boxes" in pixels, "scores" and "labels"
    for each. Its labels count from 1, for 0 is the ground: it is built with one class more. The
    number of classes is that of the data everywhere else.
    """

    measures = (
        *PRECISIONS,
        Measure("found", "share of an image's boxes that are met by IoU above 0.5", share=True),
    )
    model_computes_loss = True

    @property
    def outputs(self) -> int:
        """Classes of the model: one more, for the ground."""
        return self.dataset.num_classes + 1

    def read(self, outputs: Any) -> Boxes:  # type: ignore[override]
        """The boxes, with labels that count from 0.

        Raises:
            TypeError: There are none; the message says what there is.
        """
        if not isinstance(outputs, list) or not all(
            isinstance(image, Mapping) and set(image) >= _KEYS for image in outputs
        ):
            raise TypeError(
                f"outputs are {type(outputs).__name__}; give a list of dicts of boxes, scores, "
                "labels in eval mode"
            )
        return [{**image, "labels": image["labels"] - 1} for image in outputs]

    def detect(self, outputs: Boxes) -> Boxes:
        """The boxes as they are."""
        return outputs

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """None here: only the model knows them."""
        raise NotImplementedError(f"task {self.name!r}: the model computes its losses")

    def scores(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Of each image, the share of its boxes that one of their class meets; 1 where none is."""
        found = []
        for image, target in zip(outputs, targets, strict=True):
            met = box_iou(target["boxes"], image["boxes"]) > 0.5
            met &= target["labels"][:, None] == image["labels"]
            found.append(met.any(dim=1).float().mean() if len(met) else torch.tensor(1.0))
        return {"found": torch.stack([value.cpu() for value in found])}

    def objective(self, net: Callable[..., Any], inputs: Tensor, targets: Any) -> Terms:
        """The sum of the model's losses."""
        told = []
        for target in targets:
            taken = ~target["iscrowd"].bool() if "iscrowd" in target else slice(None)
            boxes, labels = target["boxes"][taken], target["labels"][taken]
            told.append({"boxes": boxes, "labels": labels + 1})
        return Terms(torch.stack(list(net(inputs, told).values())).sum(), {})

    def wanted(self, targets: Any) -> tuple[int, ...]:
        """(B,): so many dicts."""
        return (len(targets),)

    def check_outputs(self, net: nn.Module, outputs: Any, targets: Any) -> None:
        """As in `Task`: so many dicts."""
        asked = f"task {self.name!r} on {self.dataset.name!r}"
        try:
            found = len(self.read(outputs))
        except TypeError as error:
            raise ValueError(f"net={type(net).__name__} does not fit {asked}: {error}") from None
        if found != len(targets):
            raise ValueError(
                f"net={type(net).__name__} gives boxes of {found} images, but {asked} takes "
                f"{len(targets)}"
            )
