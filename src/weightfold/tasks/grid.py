"""Boxes on a grid with anchors (YOLOv2: Redmon and Farhadi 2017, arXiv:1612.08242, section 2)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

Boxes = list[dict[str, Tensor]]
"""Of each image: "boxes" (M, 4), "labels" (M,) and, of predictions, "scores" (M,)."""


class Assigned(NamedTuple):
    """True boxes and the places of the grid that answer for them; P of those."""

    image: Tensor
    """int64 (P,)."""
    place: Tensor
    """int64 (P, 3): anchor, row and column."""
    offset: Tensor
    """(P, 2): x and y within the cell, in [0, 1]."""
    size: Tensor
    """(P, 2): logarithms of width and height by those of the anchor."""
    label: Tensor
    """int64 (P,)."""
    box: Tensor
    """(P, 4): left, top, right, bottom as shares of the image."""


@dataclass(frozen=True)
class Grid:
    """How an output map says boxes.

    A network gives (B, A (5 + classes), rows, columns): for each of A anchors, in each cell, x and
    y (sigmoids, within the cell), width and height (exponentials, times the anchor's), objectness
    (sigmoid) and classes (softmax). All sizes are shares of the image's width and height.

    Attributes:
        anchors: (width, height) of each.
        classes: Number of classes.
    """

    anchors: tuple[tuple[float, float], ...]
    classes: int

    @property
    def channels(self) -> int:
        """Of the output map."""
        return len(self.anchors) * (5 + self.classes)

    def split(self, outputs: Tensor) -> Tensor:
        """(B, A, rows, columns, 5 + classes) of (B, channels, rows, columns)."""
        rows, columns = outputs.shape[-2:]
        return outputs.view(-1, len(self.anchors), 5 + self.classes, rows, columns).movedim(2, -1)

    def boxes(self, raw: Tensor) -> Tensor:
        """Left, top, right, bottom, (B, A, rows, columns, 4), of what `split` gives."""
        rows, columns = raw.shape[2:4]
        anchors = raw.new_tensor(self.anchors).view(-1, 1, 1, 2)
        corner = torch.stack(
            torch.meshgrid(
                torch.arange(columns, device=raw.device),
                torch.arange(rows, device=raw.device),
                indexing="xy",
            ),
            dim=-1,
        )
        center = (raw[..., :2].sigmoid() + corner) / raw.new_tensor([columns, rows])
        half = raw[..., 2:4].exp() * anchors / 2
        return torch.cat([center - half, center + half], dim=-1)

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """All boxes, (B, N, 4) as shares of the image, and their scores, (B, N, classes)."""
        raw = self.split(outputs)
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].softmax(dim=-1)
        return self.boxes(raw).flatten(1, 3), scores.flatten(1, 3)

    def assign(self, targets: Boxes, rows: int, columns: int) -> Assigned:
        """Which places answer for which boxes.

        A box belongs to the cell of its middle and to the anchor most like it in width and height.
        Of several boxes with one place, the smallest has it.

        Args:
            targets: With boxes as shares of the image.
            rows: Of the grid.
            columns: Of the grid.
        """
        box = torch.cat([target["boxes"] for target in targets]).clamp(0, 1)
        label = torch.cat([target["labels"] for target in targets])
        image = torch.cat([torch.full_like(t["labels"], i) for i, t in enumerate(targets)])
        size = box[:, 2:] - box[:, :2]
        order = size.prod(dim=1).argsort(stable=True)
        box, label, image, size = box[order], label[order], image[order], size[order]
        anchors = box.new_tensor(self.anchors)
        anchor = shape_iou(size, anchors).argmax(dim=1)
        middle = (box[:, :2] + box[:, 2:]) / 2 * box.new_tensor([columns, rows])
        limits = torch.tensor([columns - 1, rows - 1], device=box.device)
        cell = middle.long().minimum(limits)
        place = torch.stack([anchor, cell[:, 1], cell[:, 0]], dim=1)
        flat = ((image * len(anchors) + anchor) * rows + cell[:, 1]) * columns + cell[:, 0]
        kept = _first_of_each(flat)
        return Assigned(
            image[kept],
            place[kept],
            (middle - cell)[kept],
            (size / anchors[anchor]).clamp_min(1e-6).log()[kept],
            label[kept],
            box[kept],
        )

    def detect(
        self, outputs: Tensor, *, threshold: float, overlap: float, limit: int = 100
    ) -> Boxes:
        """The boxes that a network finds, best first.

        Args:
            outputs: (B, channels, rows, columns).
            threshold: Least score of a box.
            overlap: Of two boxes of one class with a larger IoU, the better is kept.
            limit: Boxes of an image, at most.

        Returns:
            With boxes as shares of the image.
        """
        found = []
        for boxes, scores in zip(*self.decode(outputs), strict=True):
            place, label = (scores > threshold).nonzero(as_tuple=True)
            box, score = boxes[place].clamp(0, 1), scores[place, label]
            kept = batched_nms(box, score, label, overlap)[:limit]
            found.append({"boxes": box[kept], "scores": score[kept], "labels": label[kept]})
        return found


def _first_of_each(keys: Tensor) -> Tensor:
    """Places of the first of all equal keys, in order."""
    order = keys.argsort(stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[order].diff() != 0
    return order[first].sort().values


def shape_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """IoU of boxes (N, 2) and (A, 2) of width and height with one middle: (N, A)."""
    shared = torch.minimum(sizes[:, None], anchors).prod(dim=-1)
    return shared / (sizes.prod(dim=1)[:, None] + anchors.prod(dim=1) - shared).clamp_min(1e-12)


def fit_anchors(sizes: Tensor, count: int) -> tuple[tuple[float, float], ...]:
    """Anchors that fit boxes: k-means by 1 - IoU (YOLOv2, "Dimension Clusters"), smallest first.

    Begins with boxes at even steps through all, in order of their area, and draws nothing.

    Args:
        sizes: Width and height of boxes, (N, 2).
        count: How many anchors.

    Raises:
        ValueError: Fewer different boxes than anchors.
    """
    sizes = sizes.double()
    different = sizes.unique(dim=0)
    if not 0 < count <= len(different):
        raise ValueError(
            f"anchors={count}: the training boxes have {len(different)} different sizes; give 1 to "
            "that many"
        )
    ordered = different[different.prod(dim=1).argsort(stable=True)]
    steps = ((torch.arange(count) + 0.5) / count * len(ordered)).long()
    anchors, nearest = ordered[steps], None
    while True:
        found = shape_iou(sizes, anchors).argmax(dim=1)
        if nearest is not None and torch.equal(found, nearest):
            break
        nearest = found
        means = [sizes[found == i].mean(dim=0) for i in range(count)]
        anchors = torch.stack(
            [old if m.isnan().any() else m for old, m in zip(anchors, means, strict=True)]
        )
    anchors = anchors[anchors.prod(dim=1).argsort(stable=True)]
    return tuple((w, h) for w, h in anchors.tolist())


def shares(targets: Any, width: int, height: int) -> Boxes:
    """Targets in pixels as shares of the image, without those that are to be overlooked."""
    found = []
    for target in targets:
        taken = ~target["iscrowd"].bool() if "iscrowd" in target else slice(None)
        boxes = target["boxes"][taken]
        found.append(
            {
                "boxes": boxes / boxes.new_tensor([width, height, width, height]),
                "labels": target["labels"][taken],
            }
        )
    return found
