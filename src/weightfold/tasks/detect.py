"""Detection of objects on a grid with anchors, judged by mean average precision."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from weightfold.tasks.boxes import PRECISIONS, OfBoxes
from weightfold.tasks.grid import Boxes, Grid, fit_anchors, shares
from weightfold.tasks.measure import Measure
from weightfold.tasks.outputs import tensor_of
from weightfold.tasks.registry import register

_IGNORED = 0.6
_OBJECT = 5.0
_OVERLAP = 0.45
_THRESHOLD = 0.005


@register("detect")
@dataclass(frozen=True, eq=False)
class Detection(OfBoxes):
    """Boxes on a grid as YOLOv2's, judged by mean average precision.

    Models give (B, anchors (5 + classes), rows, columns), see `weightfold.tasks.grid.Grid`.

    The loss of an image is YOLOv2's, summed over the grid, with the weights of its authors' code:
    squared error of x, y and the logarithms of width and height, times 2 less the box's share of
    the image; 5 times the squared error of objectness and IoU where there is a box; the square of
    objectness elsewhere, unless a box is met with IoU above 0.6; and cross-entropy of the class.
    Boxes are found with scores above 0.005 and non-maximum suppression at IoU 0.45.

    Attributes:
        anchors: (width, height) of each, as shares of the image; or how many to fit to the training
            boxes, see `fit_anchors`.
        output: Which of several outputs the map is, see `weightfold.tasks.outputs.tensor_of`.

    Raises:
        ValueError: The data has no boxes, or no number of classes, or not so many different boxes.
    """

    anchors: tuple[tuple[float, float], ...] | int = 5
    output: str | int | None = None

    measures = (
        *PRECISIONS,
        Measure("box_iou", "mean IoU of each box and the one its place gives", share=True),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.anchors, int):
            boxes = torch.cat([t["boxes"] for t in self._shares(self.dataset.train.targets)])
            fitted = fit_anchors(boxes[:, 2:] - boxes[:, :2], self.anchors)
            object.__setattr__(self, "anchors", fitted)
        elif not self.anchors or any(len(a) != 2 or not min(a) > 0 for a in self.anchors):
            raise ValueError(f"anchors={self.anchors}: give pairs of a width and a height above 0")

    @property
    def grid(self) -> Grid:
        """How outputs say boxes."""
        assert not isinstance(self.anchors, int)
        return Grid(self.anchors, self.dataset.num_classes)

    @property
    def outputs(self) -> int:
        """Channels of the output map: anchors (5 + classes)."""
        return self.grid.channels

    def _shares(self, targets: Any) -> Boxes:
        _, height, width = self.dataset.image_shape
        return shares(targets, width, height)

    def read(self, outputs: Any) -> Tensor:
        """The map."""
        return tensor_of(outputs, self.output)

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """Of each image, summed over the grid."""
        raw, boxes = self.grid.split(outputs), self._shares(targets)
        known = self.grid.assign(boxes, *raw.shape[2:4])
        place = (known.image, *known.place.T)
        own, area = raw[place], (known.box[:, 2:] - known.box[:, :2]).prod(dim=1)
        found = self.grid.boxes(raw)
        objectness = raw[..., 4].sigmoid()
        empty = ~_met(found.detach(), boxes)
        empty[place] = False
        losses = (objectness.square() * empty).flatten(1).sum(dim=1)
        position = (own[:, :2].sigmoid() - known.offset).square().sum(dim=1)
        shape = (own[:, 2:4] - known.size).square().sum(dim=1)
        iou = _iou(found[place].detach(), known.box)
        each = (2 - area) * (position + shape) + _OBJECT * (objectness[place] - iou).square()
        each = each + F.cross_entropy(own[:, 5:], known.label, reduction="none")
        return losses.index_add(0, known.image, each)

    def scores(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """Of each image, how well the boxes that answer for the true ones fit; 1 where none is."""
        raw = self.grid.split(outputs)
        known = self.grid.assign(self._shares(targets), *raw.shape[2:4])
        iou = _iou(self.grid.boxes(raw)[(known.image, *known.place.T)], known.box)
        count = known.image.bincount(minlength=len(raw))
        total = iou.new_zeros(len(raw)).index_add(0, known.image, iou)
        return {"box_iou": torch.where(count > 0, total / count.clamp_min(1), 1.0)}

    def detect(self, outputs: Tensor) -> Boxes:
        """The boxes that a network finds, in pixels, best first.

        Args:
            outputs: As `read` returns them.
        """
        _, height, width = self.dataset.image_shape
        found = self.grid.detect(outputs, threshold=_THRESHOLD, overlap=_OVERLAP)
        sides = outputs.new_tensor([width, height, width, height])
        return [{**image, "boxes": image["boxes"] * sides} for image in found]

    def wanted(self, targets: Any) -> tuple[int, ...]:
        """(B, anchors (5 + classes), rows, columns), of any grid."""
        return (len(targets), self.outputs)

    def check_outputs(self, net: torch.nn.Module, outputs: Any, targets: Any) -> None:
        """As in `Task`; the grid may have any size."""
        try:
            found = self.read(outputs)
        except (TypeError, ValueError):
            found = None
        flat = found[:, :, 0, 0] if found is not None and found.dim() == 4 else outputs
        super().check_outputs(net, flat, targets)


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Of each pair, (P,)."""
    low, high = boxes[:, :2].maximum(others[:, :2]), boxes[:, 2:].minimum(others[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=1)
    areas = [(b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp_min(1e-12)


def _met(found: Tensor, boxes: Boxes) -> Tensor:
    """Whether each box of the grid, (B, A, rows, columns), meets a true one."""
    met = [
        box_iou(places.flatten(0, 2), image["boxes"]).gt(_IGNORED).any(dim=1)
        for places, image in zip(found, boxes, strict=True)
    ]
    return torch.stack(met).view(found.shape[:-1])
