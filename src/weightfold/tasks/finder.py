"""A detector that gives boxes itself: decoding and non-maximum suppression in its forward."""

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from weightfold.tasks.grid import Grid


class Finder(nn.Module):
    """A network with a grid's map behind it, to be exported as one graph.

    Args:
        net: Gives the map (B, channels, rows, columns).
        grid: How it says boxes.
        threshold: Least score of a box.
        overlap: Of two boxes of one class with a larger IoU, the better is kept.
    """

    def __init__(self, net: nn.Module, grid: Grid, *, threshold: float, overlap: float) -> None:
        super().__init__()
        self.net, self.grid, self.threshold, self.overlap = net, grid, threshold, overlap

    def forward(self, x: Tensor) -> Tensor:
        """The boxes of all images, best first: (K, 7) of image, class, score, and four shares."""
        boxes, scores = self.grid.decode(self.net(x))
        image, place, label = (scores > self.threshold).nonzero(as_tuple=True)
        box, score = boxes[image, place].clamp(0, 1), scores[image, place, label]
        # Boxes of different images and classes are moved apart, so that none meets another.
        group = (image * self.grid.classes + label).to(box.dtype)
        kept = nms(box + 2 * group[:, None], score, self.overlap)
        columns = (image.to(box.dtype)[:, None], label.to(box.dtype)[:, None], score[:, None], box)
        return torch.cat(columns, dim=1)[kept]
