"""Augmentation that moves an image and its mask or boxes together."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from weightfold.data.dataset import VOID

_LEFT_OF_A_BOX = 0.25
_COLUMNS = 8


@dataclass(frozen=True)
class JointAugment:
    """Flip, scale, crop and colour, as usual in segmentation and detection.

    The image is scaled by a random factor and put at a random place over its own frame: where it is
    larger, that is a crop; where smaller, the rest is black, and void in the mask. Boxes are cut at
    the frame, and dropped where less than a quarter of their area is left. Done by torchvision's
    v2 functions.

    Attributes:
        flip: Mirror left to right, every second image by chance.
        scale: Least and largest factor, drawn evenly on a logarithmic scale.
        crop_padding: By how many pixels more the image may be moved, in each direction.
        colour: Brightness, contrast and saturation are multiplied by factors drawn from
            [1 - colour, 1 + colour]; below 1, and 0 for none.

    Raises:
        ValueError: Factors out of order or not positive, `colour` outside [0, 1), negative padding.
    """

    flip: bool = True
    scale: tuple[float, float] = (1.0, 1.0)
    crop_padding: int = 0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < float("inf"):
            raise ValueError(f"scale={self.scale}: give the least and the largest factor, above 0")
        if not 0 <= self.colour < 1:
            raise ValueError(f"colour={self.colour} must lie in [0, 1)")
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding={self.crop_padding} is negative; 0 moves nothing")

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Numbers in [0, 1), float64 (N, 8), from which everything is made."""
        return torch.rand(images, _COLUMNS, generator=generator, dtype=torch.float64)

    def apply(self, images: Tensor, targets: Any, draws: Tensor) -> tuple[Tensor, Any]:
        """Vary images and targets together.

        Args:
            images: uint8 (B, C, H, W).
            targets: Masks, uint8 (B, H, W); or a list of B dicts with "boxes", floating point
                (M, 4) of left, top, right, bottom, and with what else there is one of a box.
            draws: Of `draw`, (B, 8).

        Returns:
            The same of the same shapes, but for the numbers of boxes.

        Raises:
            TypeError: The targets are neither.
        """
        masks = isinstance(targets, Tensor)
        if masks and targets.dim() != 3:
            raise TypeError(
                f"{self} moves masks (B, H, W) or boxes; targets are {tuple(targets.shape)}"
            )
        varied = [
            self._one(image, target, row)
            for image, target, row in zip(images, targets, draws.tolist(), strict=True)
        ]
        found = [target for _, target in varied]
        return torch.stack([image for image, _ in varied]), torch.stack(found) if masks else found

    def _one(self, image: Tensor, target: Any, draws: list[float]) -> tuple[Tensor, Any]:
        frame = (image.shape[-2], image.shape[-1])
        layers = [tv_tensors.Image(image), _wrapped(target, frame)]
        if self.flip and draws[0] < 0.5:
            layers = [transforms.horizontal_flip(layer) for layer in layers]
        low, high = self.scale
        factor = low * (high / low) ** draws[1]
        size = [max(1, round(side * factor)) for side in frame]
        if size != list(frame):
            layers = [transforms.resize(layer, size) for layer in layers]
        corner = [self._corner(s, f, u) for s, f, u in zip(size, frame, draws[2:4], strict=True)]
        if corner != [0, 0] or size != list(frame):
            layers = [_framed(layer, corner, size, frame) for layer in layers]
        moved, boxes = layers
        if self.colour:
            factors = [1 + self.colour * (2 * u - 1) for u in draws[4:7]]
            moved = transforms.adjust_brightness(moved, factors[0])
            moved = transforms.adjust_contrast(moved, factors[1])
            if len(moved) == 3:
                moved = transforms.adjust_saturation(moved, factors[2])
        return moved.as_subclass(Tensor), _unwrapped(boxes, target, size)

    def _corner(self, size: int, frame: int, draw: float) -> int:
        """Where the frame begins in the scaled image; negative: before it."""
        low = min(0, size - frame) - self.crop_padding
        high = max(0, size - frame) + self.crop_padding
        return low + int(draw * (high - low + 1))


def _wrapped(target: Any, frame: tuple[int, int]) -> Any:
    if isinstance(target, Tensor):
        return tv_tensors.Mask(target)
    return tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=frame)  # type: ignore[call-overload]


def _framed(layer: Any, corner: list[int], size: list[int], frame: tuple[int, int]) -> Any:
    """What lies in the frame whose top left is `corner` in a layer of `size`."""
    before = [max(0, -start) for start in corner]
    after = [max(0, start + f - s) for start, f, s in zip(corner, frame, size, strict=True)]
    fill = VOID if isinstance(layer, tv_tensors.Mask) else 0
    padded = transforms.pad(layer, [before[1], before[0], after[1], after[0]], fill=fill)
    top, left = (max(0, start) for start in corner)
    return transforms.crop(padded, top, left, *frame)


def _unwrapped(layer: Any, target: Any, size: list[int]) -> Any:
    if isinstance(target, Tensor):
        return layer.as_subclass(Tensor)
    boxes, (height, width) = layer.as_subclass(Tensor), layer.canvas_size
    scaled = _area(target["boxes"]) * (size[0] * size[1] / (height * width))
    kept = _area(boxes) >= _LEFT_OF_A_BOX * scaled
    return {name: (boxes if name == "boxes" else value)[kept] for name, value in target.items()}


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0)
    return sides[:, 0] * sides[:, 1]
