"""Threads that unpack uploaded images under a budget of pixels."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

Result = TypeVar("Result")


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
