"""Uploaded images unpacked under a budget of pixels, known from their headers."""

import asyncio
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from PIL import Image, UnidentifiedImageError

from weightfold.serve.images import FORMATS, UndecodableImage

Result = TypeVar("Result")


def count_pixels(data: bytes, *, size: int, max_pixels: int) -> int:
    """Pixels that an image file takes, by its header; nothing is unpacked.

    Args:
        data: The whole file.
        size: To which the shorter side will be scaled, which makes a thin image a large one.
        max_pixels: Most that are taken.

    Returns:
        Width times height as uploaded, or as scaled where that is more.

    Raises:
        UndecodableImage: No image of a known format, or one of more than `max_pixels`.
    """
    # On bytes made to hurt, Pillow raises nearly anything (SyntaxError, struct.error, KeyError...).
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError as error:
        raise UndecodableImage(f"not an image in one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(f"the image has more than {max_pixels} pixels") from error
    except Exception as error:
        raise UndecodableImage(f"the image is damaged or cut short ({error})") from error
    shorter, longer = sorted((width, height))
    if width * height > max_pixels:
        raise UndecodableImage(
            f"the image has {width} x {height} pixels; at most {max_pixels} are taken"
        )
    if (scaled := size * size * longer // max(1, shorter)) > max_pixels:
        raise UndecodableImage(
            f"the image of {width} x {height} pixels has {scaled} when its shorter side is scaled "
            f"to {size}; at most {max_pixels} are taken"
        )
    return max(width * height, scaled)


class Decoders:
    """Threads that decode, one a processor, with so many pixels at once; in order of arrival.

    Used as an asynchronous context manager.

    Args:
        max_pixels: Unpacked at once, also of requests that were given up meanwhile.
    """

    def __init__(self, max_pixels: int) -> None:
        self._free = max_pixels
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    async def __aenter__(self) -> Self:
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "weightfold-decode")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.shutdown()

    async def run(self, work: Callable[[], Result], pixels: int = 0) -> Result:
        """Do `work` in a thread, once there is room for `pixels`; at most `max_pixels`."""
        if pixels:
            async with self._turn:
                while pixels > self._free:
                    self._freed.clear()
                    await self._freed.wait()
                self._free -= pixels
        loop = asyncio.get_running_loop()
        done = self._pool.submit(work)
        # Work that has begun goes on when its caller is cancelled, and keeps its room till its end.
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._give_back, pixels))
        return await asyncio.wrap_future(done)

    def _give_back(self, pixels: int) -> None:
        self._free += pixels
        self._freed.set()
