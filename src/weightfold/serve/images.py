"""From the bytes of an upload to the tensor a domain's network takes.

Decoded by Pillow, as `weightfold.data` (through torchvision) does it for folders, so that an
uploaded file becomes the very tensor that it became in training. As there, only the first frame of
an animation is used, transparency is dropped, and EXIF orientation is not applied.
"""

import io
from typing import TYPE_CHECKING

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from weightfold.data.files import square

if TYPE_CHECKING:
    from weightfold.serve.engine import Preprocessing

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What is decoded, by Pillow's names; its other decoders are for rare formats and less tried."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of an image with so many channels."""


class UndecodableImage(ValueError):
    """Bytes that are no image, or one that is refused; the message says why."""


def decode(data: bytes, *, channels: int, max_pixels: int) -> Tensor:
    """Decode an image file.

    Args:
        data: The whole file, in one of `FORMATS`.
        channels: 3 for RGB, 1 for gray; other images are converted.
        max_pixels: Larger images are refused before their pixels are unpacked.

    Returns:
        uint8 (channels, H, W).

    Raises:
        UndecodableImage: Not a complete image of a known format, larger than `max_pixels`, or with
            pixels of more than 8 bits in one channel, of which Pillow would keep only the darkest.
    """
    # On bytes made to hurt, Pillow raises nearly anything (SyntaxError, struct.error, KeyError...).
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, max_pixels)
            return transforms.pil_to_tensor(image.convert(MODES[channels]))
    except UndecodableImage:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableImage(f"not an image in one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(f"the image has more than {max_pixels} pixels") from error
    except Exception as error:
        raise UndecodableImage(f"the image is damaged or cut short ({error})") from error


def prepare(data: bytes, wanted: "Preprocessing", *, max_pixels: int) -> Tensor:
    """Decode an image file and bring it to the size and scale a network was trained on.

    Args:
        data: The whole file.
        wanted: Images of (C, size, size), C 1 or 3. The shorter side is scaled to `size`, and the
            middle square taken.
        max_pixels: As in `decode`.

    Returns:
        float32 (C, size, size), bit by bit what `weightfold.data.Batches` gives for the same file.

    Raises:
        UndecodableImage: As in `decode`.
    """
    channels, size, _ = wanted.image_shape
    image = square(decode(data, channels=channels, max_pixels=max_pixels), size)
    spread = torch.tensor(wanted.std, dtype=torch.float64).view(-1, 1, 1)
    shift = torch.tensor(wanted.mean, dtype=torch.float64).view(-1, 1, 1) / spread
    return image.float().mul_((1 / (255 * spread)).float()).sub_(shift.float())


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


def _check(image: Image.Image, max_pixels: int) -> None:
    """Refuse an image by what its header says."""
    if image.width * image.height > max_pixels:
        raise UndecodableImage(
            f"the image has {image.width} x {image.height} pixels; at most {max_pixels} are taken"
        )
    if image.mode == "F" or image.mode.startswith("I"):
        raise UndecodableImage(
            f"the image has more than 8 bits a pixel and channel (mode {image.mode}); "
            "save it with 8"
        )
