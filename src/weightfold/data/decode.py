"""From an image file to pixels: the one decoder of training, prediction and serving.

Its policy, as torchvision's loader where nothing else is said:

- JPEG, PNG, WebP, BMP, GIF, PPM (PBM, PGM) and TIFF are decoded, by content and not by name.
- An image is turned upright as its EXIF orientation says.
- Gray becomes color by repeating it, color becomes gray by ITU-R 601 luma; CMYK and palettes become
  RGB by Pillow's conversion. Color profiles and gamma are not applied.
- Transparency is dropped: the color stored under a transparent pixel counts.
- Of several frames or pages the first is taken.
- 16 bits a channel keep the high byte: white is what the format says, 65535. 32-bit integers and
  floating point have no such white and are refused.
- An image is refused by its header if it has more than a given number of pixels, as stored or as
  scaled to the size that is wanted.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from weightfold.data.budget import check_bytes, check_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What is decoded, by Pillow's names; its other decoders are for rare formats and less tried."""

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
)
"""Ends of the names of files in `FORMATS`, in lower case."""

MAX_PIXELS = 178_956_970
"""Width times height of the largest image; Pillow refuses larger ones too."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of an image with so many channels."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PHOTOMETRIC, _BLACK_IS_ZERO = 262, 1


class UndecodableImage(ValueError):
    """Bytes that are no image, or one that is refused; the message says why."""


def decode(
    source: bytes | Path, *, channels: int, size: int | None = None, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Decode an image file by the policy of this module.

    Args:
        source: The whole file, or its path.
        channels: 3 for RGB, 1 for gray; other images are converted.
        size: Scale the shorter side to so many pixels and take the middle square; None: leave it.
        max_pixels: Images with more are refused before their pixels are unpacked, and so are those
            that would have more when scaled to `size`.

    Returns:
        uint8 (channels, H, W).

    Raises:
        UndecodableImage: Not a complete image of a known format, one of too many pixels, or of
            values without a white.
        OSError: `source` cannot be opened.
        ValueError: `source` is no regular file, or larger than the budget of data.
    """
    if isinstance(source, bytes):
        image = _decoded(io.BytesIO(source), channels, size, max_pixels)
    else:
        check_regular(source)
        check_bytes(source, source.stat().st_size)
        with source.open("rb") as file:
            image = _decoded(file, channels, size, max_pixels)
    return image if size is None else square(image, size)


def decode_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a mask, whose pixels are class numbers: the values of a gray image, or a palette's.

    Neither the palette's colors nor EXIF orientation are applied.

    Args:
        path: The file.
        max_pixels: As in `decode`.

    Returns:
        uint8 (H, W).

    Raises:
        UndecodableImage: As in `decode`; also an image of colors, or of values above 255.
        OSError: `path` cannot be opened.
        ValueError: As in `decode`.
    """
    check_regular(path)
    check_bytes(path, path.stat().st_size)
    with path.open("rb") as file, _opened(file, max_pixels) as image:
        _checked_pixels(image, None, max_pixels)
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise UndecodableImage(
                f"a mask holds class numbers, this image colors (mode {image.mode}); save it as a "
                "gray or palette image"
            )
        values = np.asarray(image)
        if values.max(initial=0) > np.iinfo(np.uint8).max or values.min(initial=0) < 0:
            raise UndecodableImage(f"the mask has values from {values.min()} to {values.max()}")
    return torch.from_numpy(values.astype(np.uint8))


def square(images: Tensor, size: int) -> Tensor:
    """Scale uint8 images (..., C, H, W) to a shorter side of `size` and take the middle square."""
    if images.shape[-2:] == (size, size):
        return images
    scaled = transforms.resize(images, [size], antialias=True)
    return transforms.center_crop(scaled, [size, size])


def scaled_pixels(height: int, width: int, size: int) -> int:
    """Pixels of an image of `height` x `width` when its shorter side is `size`."""
    return size * size * max(height, width) // min(height, width)


def count_pixels(data: bytes, *, size: int, max_pixels: int = MAX_PIXELS) -> int:
    """Pixels that decoding an image file takes, by its header; nothing is unpacked.

    Args:
        data: The whole file.
        size: As in `decode`.
        max_pixels: As there.

    Returns:
        Width times height as stored, or as scaled where that is more.

    Raises:
        UndecodableImage: No image of a known format, or one of more than `max_pixels`.
    """
    with _opened(io.BytesIO(data), max_pixels) as image:
        return _checked_pixels(image, size, max_pixels)


def _decoded(file: IO[bytes], channels: int, size: int | None, max_pixels: int) -> Tensor:
    with _opened(file, max_pixels) as image:
        _checked_pixels(image, size, max_pixels)
        deep = _is_deep(image)
        image.load()
        turn = _TURNS.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
        return _tensor(_high_byte(upright) if deep else upright, channels)


@contextmanager
def _opened(file: IO[bytes], max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """The image with its header read; what goes wrong inside is an `UndecodableImage`."""
    # On bytes made to hurt, Pillow raises nearly anything (SyntaxError, struct.error, KeyError...).
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except UndecodableImage:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableImage(f"not an image in one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(
            f"the image has more than {max_pixels} pixels ({error}); scale it down"
        ) from error
    except MemoryError as error:
        raise UndecodableImage("decoding the image takes more memory than there is") from error
    except Exception as error:
        raise UndecodableImage(f"the image is damaged or cut short ({error})") from error


def _checked_pixels(image: Image.Image, size: int | None, max_pixels: int) -> int:
    """Pixels by the width and height in the header, as stored or scaled; too many are refused."""
    stored = image.width * image.height
    if stored > max_pixels:
        raise UndecodableImage(
            f"the image has {image.width} x {image.height} pixels; at most {max_pixels} are taken; "
            "scale it down"
        )
    scaled = 0 if size is None else scaled_pixels(image.height, image.width, size)
    if scaled > max_pixels:
        raise UndecodableImage(
            f"the image has {image.width} x {image.height} pixels, and {scaled} with its shorter "
            f"side scaled to {size}; at most {max_pixels} are taken; crop it"
        )
    return max(stored, scaled)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether pixels are 16 bits of one channel; Pillow's own conversion clips those at 255.

    Raises:
        UndecodableImage: Pixels are of another kind, in which no number is white.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return False
    tags = getattr(image, "tag_v2", {})
    packed = any("I;12" in str(tile.args) for tile in image.tile)
    white_is_maximum = image.mode.startswith("I;16") and not packed
    if image.format == "TIFF":
        white_is_maximum &= tags.get(_PHOTOMETRIC) == _BLACK_IS_ZERO
    # Pillow's PPM decoder scales to 65535, whatever the maximum in the header is.
    if white_is_maximum or (image.format == "PPM" and image.mode == "I"):
        return True
    raise UndecodableImage(
        f"the image has more than 8 bits a pixel and channel, in a form without a known white "
        f"(mode {image.mode}); save it with 8"
    )


def _high_byte(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """By EXIF, 1 if that is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _tensor(image: Image.Image, channels: int) -> Tensor:
    # Through RGBA, where Pillow warns that the transparency of a palette is lost otherwise.
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return transforms.pil_to_tensor(image.convert(MODES[channels]))
