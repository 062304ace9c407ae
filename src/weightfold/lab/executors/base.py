"""What every executor has, and what they share. Imports no torch."""

import pickle
from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from weightfold.lab.executors.board import Board, FileBoard

RUNNING = ".running"
"""In the folder of the runs: locks, progress and job files of those being made."""


class WorkerDied(RuntimeError):
    """What made a run is no more: killed, out of memory or of time, its machine lost."""


class RunExecutor(Executor):
    """An executor of `concurrent.futures` that makes runs.

    A subclass raises in its constructor if it cannot be reached. A future raises what its call
    raised, or `WorkerDied`. `shutdown(cancel_futures=True)` ends the calls under way too: runs
    go on from their folders.

    Args:
        root: Folder of the runs, absolute; not made here.
        jobs: See the attribute.
        threads: See the attribute.

    Attributes:
        options: Options of its spec -> types, as `weightfold.spec.read_options` takes them; the
            constructor takes them by name.
        shared: Whether its workers see the folder of the runs.
        jobs: At most so many calls are to be submitted at once; None: any number, it has a queue.
        threads: Of torch in a worker, at most; None: as many as torch takes.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    shared: bool = True

    def __init__(self, root: Path, jobs: int | None, threads: int | None) -> None:
        self.root, self.jobs, self.threads = root, jobs, threads

    @abstractmethod
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`."""

    @abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures.Executor.shutdown`."""

    def board(self) -> Board:
        """Where its workers tell how far they are."""
        return FileBoard(self.root / RUNNING)


@dataclass(frozen=True)
class Outcome:
    """What a call came to, in a form that can be sent.

    Attributes:
        value: Returned.
        error: Raised.
    """

    value: Any = None
    error: Exception | None = None


def attempt(threads: int | None, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Outcome:
    """Call a function in a worker; what it raises is part of the outcome.

    Args:
        threads: Of torch, at most; None: as many as it finds.
        fn: What to call.
        args: Its arguments.
        kwargs: Its arguments.
    """
    try:
        if threads is not None:
            import torch

            torch.set_num_threads(min(threads, torch.get_num_threads()))  # OMP_NUM_THREADS bounds
        return Outcome(fn(*args, **kwargs))
    except Exception as error:
        return Outcome(error=_portable(error))


def settle(future: Future[Any], outcome: Outcome) -> None:
    """Give a future its outcome, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    if outcome.error is None:
        future.set_result(outcome.value)
    else:
        future.set_exception(outcome.error)


def _portable(error: Exception) -> Exception:
    """The error if it can be sent to another process, else one with its name and message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
