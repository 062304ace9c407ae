"""From the bytes of an upload to the tensor a domain's network takes.

Decoded by `weightfold.data.decode`, as image folders are, so that an uploaded file becomes the very
tensor that it became in training.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from weightfold.data.dataset import scale_and_shift
from weightfold.data.decode import MAX_PIXELS, MODES, decode
from weightfold.data.decode import UndecodableImage as UndecodableImage

if TYPE_CHECKING:
    from weightfold.core.preprocessing import Preprocessing


def prepare(data: bytes | Path, wanted: "Preprocessing", *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode an image file and bring it to the size and scale a network was trained on.

    Args:
        data: The whole file, or its path.
        wanted: Images of (C, size, size), C 1 or 3. The shorter side is scaled to `size`, and the
            middle square taken.
        max_pixels: As in `decode`.

    Returns:
        float32 (C, size, size), bit by bit what `weightfold.data.Batches` gives for the same file.

    Raises:
        UndecodableImage: As in `decode`.
        OSError: As there.
        ValueError: As there.
    """
    channels, size, _ = wanted.image_shape
    image = decode(data, channels=channels, size=size, max_pixels=max_pixels)
    scale, shift = scale_and_shift(
        wanted.unit_mean, wanted.unit_std, wanted.image_shape, torch.uint8
    )
    return image.float().mul_(scale).sub_(shift)


def check_servable(domain: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse a domain whose images cannot come from image files.

    Raises:
        ValueError: `image_shape` is not (1 or 3, size, size).
    """
    channels, height, width = image_shape
    if channels not in MODES or height != width:
        raise ValueError(
            f"domain {domain!r} takes images of {tuple(image_shape)}; only (1, size, size) and "
            "(3, size, size) can be made of uploaded files"
        )
