"""Runs on this machine: in this process, or in processes of their own."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from weightfold.lab.executors.base import Outcome, RunExecutor, WorkerDied, attempt, settle

VISIBLE = "CUDA_VISIBLE_DEVICES"


def local(root: Path, jobs: int | None) -> RunExecutor:
    """The executor for so many runs at once: this process for one, the default, else processes."""
    return ThisProcess(root) if jobs in (None, 1) else Processes(root, jobs)


class ThisProcess(RunExecutor):
    """Calls are made in this process, while they are submitted; Ctrl-C ends them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, jobs=1, threads=None)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`; the future is done."""
        future: Future[Any] = Future()
        try:
            settle(future, Outcome(fn(*args, **kwargs)))
        except Exception as error:
            settle(future, Outcome(error=error))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing is under way."""


class Processes(RunExecutor):
    """Calls are made in processes, started by spawn; the death of one costs its call only.

    The processes share the cores, and are dealt the GPUs in turn: each sees one of them. They exit
    as soon as this process shuts them down or dies: their end of a pipe is then closed.

    Args:
        root: As `RunExecutor`.
        jobs: How many processes.
    """

    def __init__(self, root: Path, jobs: int) -> None:
        super().__init__(root, jobs, threads=max(1, (os.cpu_count() or 1) // jobs))
        self._spawn = multiprocessing.get_context("spawn")
        self._theirs, self._ours = self._spawn.Pipe(duplex=False)
        gpus = _gpus()
        self._free: SimpleQueue[tuple[ProcessPoolExecutor, str | None]] = SimpleQueue()
        for index in range(jobs):
            gpu = gpus[index % len(gpus)] if gpus else None
            self._free.put((self._process(gpu), gpu))
        self._callers = ThreadPoolExecutor(jobs)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`."""
        return self._callers.submit(self._call, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures.Executor.shutdown`."""
        if cancel_futures:
            self._ours.close()
        self._callers.shutdown(wait, cancel_futures=cancel_futures)
        self._ours.close()
        while not self._free.empty():
            self._free.get()[0].shutdown(wait)
        self._theirs.close()

    def _process(self, gpu: str | None) -> ProcessPoolExecutor:
        """A pool of one process, which a call starts."""
        return ProcessPoolExecutor(1, self._spawn, _begin, (gpu, self._theirs))

    def _call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """In a thread: make a call in a free process."""
        pool, gpu = self._free.get()
        try:
            outcome = pool.submit(attempt, self.threads, fn, *args, **kwargs).result()
        except BrokenProcessPool as error:
            pool.shutdown()
            pool = self._process(gpu)
            raise WorkerDied(
                "its worker process died: killed, out of memory (fewer jobs need less), or of a "
                "script without `if __name__ == '__main__'`"
            ) from error
        finally:
            self._free.put((pool, gpu))
        if outcome.error is not None:
            raise outcome.error
        return outcome.value


def _gpus() -> list[str]:
    """The CUDA devices that this process may use."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _begin(gpu: str | None, alive: Connection) -> None:
    """Start of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if gpu is not None:
        os.environ[VISIBLE] = gpu
    Thread(target=_exit_with, args=(alive,), daemon=True).start()


def _exit_with(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)


EXECUTOR = local
