"""Run cells: those not finished yet, several at a time, in processes of their own."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from weightfold.lab.display import Display
from weightfold.lab.run import Run, run
from weightfold.train.progress import Progress

POLL_SECONDS = 0.2

Failures = dict[Run, Exception]


class CellsFailed(RuntimeError):
    """Some cells failed; the others were run to their end.

    Attributes:
        failed: What each failed cell raised.
        finished: The records of the others.
    """

    def __init__(self, failed: Failures, finished: Mapping[Run, Any]) -> None:
        self.failed, self.finished = dict(failed), dict(finished)
        reasons: dict[str, list[str]] = {}
        for cell, error in failed.items():
            reasons.setdefault(f"{type(error).__name__}: {error}", []).append(cell.folder)
        lines = (f"{', '.join(folders)}: {reason}" for reason, folders in reasons.items())
        super().__init__(
            f"{len(failed)} of {len(failed) + len(finished)} cells failed:\n" + "\n".join(lines)
        )


def run_cells(
    cells: Sequence[Run],
    root: Path,
    *,
    data_root: Path | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> dict[Run, Any]:
    """Train cells, each in its folder below `root`; finished ones are read, not trained again.

    What a cell needs (its teacher) is trained before it, once. A cell that fails does not keep the
    others from running. Stopped by Ctrl-C, or in any other way, the same call goes on where it
    was, within a cell after its last whole epoch.

    Args:
        cells: What to train; equal ones are run once.
        root: Folder of the runs; made if missing.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        jobs: Worker processes (started by spawn: guard your script with
            `if __name__ == "__main__"`), which share the cores; 1 trains in this process.
        progress: Show a bar for all cells and one for each that is running.

    Returns:
        Cell -> the record of its run, in the order of `cells`.

    Raises:
        CellsFailed: Some cells failed; raised after the others were run.
        ValueError: `jobs` is below 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: give the number of processes, at least 1")
    root = Path(root)
    failed: Failures = {}
    wanted = [cell for stage in _stages(cells) for cell in stage]
    done = {cell: h for cell in wanted if (h := cell.finished(root)) is not None}
    with Display(len(wanted), len(done), shown=progress) as display:
        for stage in _stages(cells):
            waiting = [cell for cell in stage if cell not in done]
            for cell in [cell for cell in waiting if cell.before in failed]:
                failed[cell] = RuntimeError(f"its {cell.before.folder} failed")  # type: ignore[union-attr]
                waiting.remove(cell)
            if not waiting:
                continue
            train = _in_this_process if jobs == 1 else partial(_in_workers, jobs=jobs)
            for cell, outcome in train(waiting, root, data_root, display):
                display.end(cell, failed=isinstance(outcome, Exception))
                if isinstance(outcome, Exception):
                    failed[cell] = outcome
                else:
                    done[cell] = outcome
    if failed:
        raise CellsFailed(failed, done)
    return {cell: done[cell] for cell in cells}


def _stages(cells: Sequence[Run]) -> list[list[Run]]:
    """The cells and what they need, each once, in stages that need only those before."""
    stages: list[list[Run]] = []
    rest = list(dict.fromkeys(cells))
    while rest:
        stages.insert(0, rest)
        rest = list(dict.fromkeys(cell.before for cell in rest if cell.before))
    seen: set[Run] = set()
    for index, stage in enumerate(stages):
        stages[index] = [cell for cell in stage if cell not in seen]
        seen |= set(stage)
    return stages


Outcomes = Iterator[tuple[Run, Any]]
"""A cell with the record of its run, or the exception it ended with."""


def _in_this_process(
    cells: list[Run], root: Path, data_root: Path | None, display: Display
) -> Outcomes:
    for cell in cells:
        display.begin(cell)
        try:
            yield cell, run(cell, root, data_root=data_root, progress=partial(display.show, cell))
        except Exception as error:
            yield cell, error


def _in_workers(
    cells: list[Run], root: Path, data_root: Path | None, display: Display, *, jobs: int
) -> Outcomes:
    with _pool(min(jobs, len(cells)), display) as (pool, listen):
        futures: dict[Future, Run] = {
            pool.submit(_work, cell, root, data_root): cell for cell in cells
        }
        while futures:
            ended, _ = wait(futures, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
            listen()
            for future in ended:
                cell, error = futures.pop(future), future.exception()
                if isinstance(error, BrokenProcessPool):
                    error = RuntimeError("a worker process died (out of memory?); use fewer jobs")
                yield cell, error if isinstance(error, Exception) else future.result()


@dataclass(frozen=True)
class _Event:
    """A cell begins (now None) or has come so far."""

    cell: Run
    now: Progress | None


@contextmanager
def _pool(
    workers: int, display: Display
) -> Iterator[tuple[ProcessPoolExecutor, Callable[[], None]]]:
    """Workers, and a function that passes what they report to the display.

    They exit as soon as this process leaves the block or dies: their end of a pipe is then closed.
    """
    spawn = multiprocessing.get_context("spawn")
    events = spawn.Queue()
    theirs, ours = spawn.Pipe(duplex=False)

    def listen() -> None:
        with suppress(queue.Empty):
            while True:
                event: _Event = events.get_nowait()
                if event.now is None:
                    display.begin(event.cell)
                else:
                    display.show(event.cell, event.now)

    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, spawn, _begin, (threads, events, theirs))
    try:
        yield pool, listen
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()
        events.close()


_EVENTS: Any = None
"""In a worker, the queue to its parent."""


def _begin(threads: int, events: Any, alive: Connection) -> None:
    """Start of a worker."""
    import torch

    global _EVENTS
    _EVENTS = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(min(threads, torch.get_num_threads()))  # which OMP_NUM_THREADS bounds
    Thread(target=_exit_with, args=(alive,), daemon=True).start()


def _exit_with(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)


def _work(cell: Run, root: Path, data_root: Path | None) -> Any:
    """One cell, in a worker."""
    _EVENTS.put(_Event(cell, None))
    return run(cell, root, data_root=data_root, progress=lambda now: _EVENTS.put(_Event(cell, now)))
