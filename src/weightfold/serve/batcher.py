"""Images of many clients and domains, computed together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from torch import Tensor

if TYPE_CHECKING:
    from weightfold.serve.engine import Engine


class Refused(Exception):
    """The images were not taken on: too many wait already, or the batcher is not running."""


@dataclass(frozen=True, eq=False)
class _Job:
    image: Tensor
    domain: str
    arrived: float  # by the event loop's clock
    answer: "asyncio.Future[Tensor]"


class Batcher:
    """Collects images from concurrent requests and computes them in one call, in a thread.

    Used as an asynchronous context manager; leaving it computes what waits and refuses the rest.
    While one batch is computed the next collects, so that the batch grows with the load by itself;
    `max_wait_ms` only matters to images that arrive when nothing is computed.

    Args:
        engine: What computes; called from one thread at a time.
        max_batch: Images in a call.
        max_wait_ms: Milliseconds that an image waits for others.
        max_queue: Images that wait; more are refused.
        observe: Called after each call with its images, its domains, and the seconds it took.
    """

    def __init__(
        self,
        engine: "Engine",
        *,
        max_batch: int,
        max_wait_ms: float,
        max_queue: int,
        observe: Callable[[int, int, float], None] = lambda images, domains, seconds: None,
    ) -> None:
        self._engine, self._observe = engine, observe
        self._max_batch, self._max_wait, self._max_queue = max_batch, max_wait_ms / 1000, max_queue
        self._waiting: deque[_Job] = deque()
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self._closing = False
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._changed.set()
        if self._running is not None:
            await self._running

    @property
    def accepting(self) -> bool:
        """Whether images are taken on."""
        return self._running is not None and not self._running.done() and not self._closing

    @property
    def waiting(self) -> int:
        """Images that wait to be computed."""
        return len(self._waiting)

    async def predict(self, images: Sequence[Tensor], domain: str) -> list[Tensor]:
        """Probabilities of each image; cancelling the caller drops those not yet computed.

        Args:
            images: Normalised, float32 (C, H, W) as the domain takes them.
            domain: Of all of them.

        Returns:
            float32 (classes of the domain,) each.

        Raises:
            Refused: Too many images wait, or the batcher is not running.
            Exception: What the engine raised for one of the images. Those of other requests are
                not affected.
        """
        if not self.accepting:
            raise Refused("the server is starting or shutting down")
        if len(self._waiting) + len(images) > self._max_queue:
            raise Refused(f"{len(self._waiting)} images wait already, of {self._max_queue}")
        loop = asyncio.get_running_loop()
        jobs = [_Job(image, domain, loop.time(), loop.create_future()) for image in images]
        self._waiting.extend(jobs)
        self._changed.set()
        try:
            return await asyncio.gather(*(job.answer for job in jobs))
        except BaseException:
            for job in jobs:
                job.answer.cancel()
            self._waiting = deque(job for job in self._waiting if not job.answer.done())
            raise

    async def _run(self) -> None:
        """Compute batch after batch, until closed and empty."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "weightfold-predict") as thread:
            while batch := await self._collect():
                answers = await loop.run_in_executor(thread, self._compute, batch)
                for job, answer in zip(batch, answers, strict=True):
                    if job.answer.done():
                        continue
                    if isinstance(answer, Exception):
                        job.answer.set_exception(answer)
                    else:
                        job.answer.set_result(answer)

    async def _collect(self) -> list[_Job]:
        """The next batch: full, or as old as allowed; empty once closed and nothing waits."""
        while not self._closing and len(self._waiting) < self._max_batch:
            oldest = self._waiting[0].arrived + self._max_wait if self._waiting else None
            self._changed.clear()
            try:
                async with asyncio.timeout_at(oldest):
                    await self._changed.wait()
            except TimeoutError:
                if self._waiting:
                    break
        return [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]

    def _compute(self, batch: list[_Job]) -> list[Tensor | Exception]:
        """An answer per job; a call that fails is repeated in halves, down to the images at fault.

        A batch too large for the memory is thereby computed in smaller ones, too.
        """
        domains, start = [job.domain for job in batch], time.perf_counter()
        try:
            answers = self._engine.predict([job.image for job in batch], domains)
            if len(answers) != len(batch):
                raise RuntimeError(f"the engine answered {len(answers)} of {len(batch)} images")
        except Exception as error:
            if len(batch) == 1:
                return [error]
            half = len(batch) // 2
            return self._compute(batch[:half]) + self._compute(batch[half:])
        self._observe(len(batch), len(set(domains)), time.perf_counter() - start)
        return list(answers)
