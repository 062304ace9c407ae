"""Run cells: those not finished yet, several at a time, on whatever executor is chosen."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from weightfold.files import FolderLockedError
from weightfold.lab.display import Display
from weightfold.lab.executors.base import RunExecutor, WorkerDied
from weightfold.lab.executors.board import Board
from weightfold.lab.executors.registry import opened
from weightfold.lab.executors.work import Busy, bring_back, claimed, pack, work, work_away
from weightfold.lab.run import Run

POLL_SECONDS = 0.2
BUSY_SECONDS = 3.0
"""How long until a run is looked at again that another process makes."""

RETRIES = 2
"""A run whose worker dies starts again so many times without coming further."""

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
    on: str | RunExecutor = "local",
    jobs: int | None = None,
    progress: bool = True,
) -> dict[Run, Any]:
    """Train cells, each in its folder below `root`; finished ones are read, not trained again.

    What a cell needs (its teacher) is trained before it, once. A cell that fails does not keep the
    others from running. One whose worker dies starts again, from its folder where the workers see
    it; it fails after `RETRIES` further deaths without coming further. A run that another process
    makes, here or on another machine that sees `root`, is waited for and read. Stopped by Ctrl-C,
    or in any other way, the same call goes on where it was, within a cell after its last whole
    epoch; what was queued is cancelled.

    Args:
        cells: What to train; equal ones are run once.
        root: Folder of the runs; made if missing.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        on: Where: "local"; "slurm" or "ray" with options, as in "slurm,partition=gpu,time=120",
            see `weightfold.lab.executors`; or an executor, of the same `root`.
        jobs: Runs at once; None: one on this machine, elsewhere as many as the cluster takes; an
            executor has its own number. "local" trains 1 in this process, more in processes
            (started by spawn: guard your script with `if __name__ == "__main__"`), which share
            the cores and are dealt the GPUs in turn.
        progress: Show a bar for all cells and one for each that is running.

    Returns:
        Cell -> the record of its run, in the order of `cells`.

    Raises:
        CellsFailed: Some cells failed; raised after the others were run.
        ConnectionError: The executor cannot be reached.
        ImportError: The executor's package is not installed.
        ValueError: `on` is wrong or `jobs` is below 1.
    """
    root = Path(root).absolute()
    wanted = _in_order(cells)
    done = {cell: h for cell in wanted if (h := cell.finished(root)) is not None}
    failed: Failures = {}
    waiting = [cell for cell in wanted if cell not in done]
    where = nullcontext(on) if isinstance(on, RunExecutor) else opened(on, root, jobs=jobs)
    data_root = _absolute(data_root)
    with where as executor:
        if waiting:
            with Display(waiting, len(done), shown=progress) as display:
                board = executor.board()
                sweep = _Sweep(executor, root, data_root, board, display, waiting, done, failed)
                with display.following(board):
                    sweep.run()
    if failed:
        raise CellsFailed(failed, done)
    return {cell: done[cell] for cell in cells}


def _absolute(data_root: Path | None) -> Path | None:
    """The data folder as workers can find it, which need not have the variable or this folder."""
    from weightfold.data.registry import ROOT_VARIABLE

    given = os.environ.get(ROOT_VARIABLE) if data_root is None else data_root
    return Path(given).expanduser().absolute() if given else None


def _in_order(cells: Sequence[Run]) -> list[Run]:
    """The cells and what they need, each once, after those it needs."""
    stages: list[list[Run]] = []
    rest = list(dict.fromkeys(cells))
    while rest:
        stages.insert(0, rest)
        rest = list(dict.fromkeys(cell.before for cell in rest if cell.before))
    return list(dict.fromkeys(cell for stage in stages for cell in stage))


@dataclass
class _Sweep:
    """Cells under way.

    Attributes:
        waiting: Not submitted, in the order to be.
        done: Gets the records.
        failed: Gets the errors.
        running: Submitted.
        claims: Held here of runs that are brought back.
        asked: When a run that another process makes is looked at again.
        deaths: Of a run's workers since it last came further.
        furthest: How far a run was when a worker died.
    """

    executor: RunExecutor
    root: Path
    data_root: Path | None
    board: Board
    display: Display
    waiting: list[Run]
    done: dict[Run, Any]
    failed: Failures
    running: dict[Future[Any], Run] = field(default_factory=dict)
    claims: dict[Run, ExitStack] = field(default_factory=dict)
    asked: dict[Run, float] = field(default_factory=dict)
    deaths: dict[Run, int] = field(default_factory=dict)
    furthest: dict[Run, float] = field(default_factory=dict)

    def run(self) -> None:
        """Until nothing is left."""
        for cell in self.waiting:
            self.board.forget(cell.folder)  # what a process that was killed left
        try:
            while self.waiting or self.running:
                self._submit_all()
                if not self.running:
                    sleep(POLL_SECONDS)
                for future in wait(self.running, POLL_SECONDS, FIRST_COMPLETED).done:
                    self._take(self.running.pop(future), future)
        finally:
            for claim in self.claims.values():
                claim.close()

    def _submit_all(self) -> None:
        """Submit what is ready, as far as there is room."""
        for cell in list(self.waiting):
            if cell.before in self.failed:
                self.waiting.remove(cell)
                self._fail(cell, RuntimeError(f"its {cell.before.folder} failed"))  # type: ignore[union-attr]
            elif self.executor.jobs is not None and len(self.running) >= self.executor.jobs:
                return
            elif cell.before in self.done or cell.before is None:
                if self.asked.get(cell, 0) > monotonic():
                    continue
                self.waiting.remove(cell)
                self._submit(cell)

    def _submit(self, cell: Run) -> None:
        with ExitStack() as claim:
            try:
                claim.enter_context(claimed(cell, self.root))
            except Busy:
                self._put_off(cell)
                return
            record = cell.finished(self.root)
            if record is not None:  # another process has made it meanwhile
                self._finish(cell, record)
                return
            if not self.executor.shared:
                self.claims[cell] = claim.pop_all()
        more = (self.data_root, self.board)
        if self.executor.shared:
            future = self.executor.submit(work, cell, self.root, *more)
        else:
            needed = [cell.folder, *([cell.before.folder] if cell.before else [])]
            future = self.executor.submit(work_away, cell, pack(self.root, needed), *more)
        self.running[future] = cell

    def _take(self, cell: Run, future: Future[Any]) -> None:
        """What a call came to."""
        error = future.exception()
        if isinstance(error, Busy | FolderLockedError):
            self.display.stop(cell)
            self._put_off(cell)
        elif isinstance(error, WorkerDied) and self._may_retry(cell):
            self.display.say(f"again: {cell.folder}: {error}")
            self.display.stop(cell)
            self.waiting.insert(0, cell)
        elif isinstance(error, Exception):
            self._fail(cell, error)
        else:
            self._finish(cell, self._record(cell, future.result()))
        if cell in self.claims:
            self.claims.pop(cell).close()

    def _record(self, cell: Run, result: Any) -> Any:
        """The record of a run, whose folder is now below `root`."""
        if self.executor.shared:
            return result
        record, archive = result
        bring_back(cell, archive, self.root)
        return record

    def _may_retry(self, cell: Run) -> bool:
        """Whether a run whose worker died starts again."""
        now = self.board.read().get(cell.folder)
        if now is not None and now.completed > self.furthest.get(cell, 0):
            self.furthest[cell], self.deaths[cell] = now.completed, 0
        self.deaths[cell] = self.deaths.get(cell, 0) + 1
        return self.deaths[cell] <= RETRIES

    def _put_off(self, cell: Run) -> None:
        """Another process makes the run."""
        if cell not in self.asked:
            self.display.say(f"waits for another process: {cell.folder}")
        self.asked[cell] = monotonic() + BUSY_SECONDS
        self.waiting.append(cell)

    def _finish(self, cell: Run, record: Any) -> None:
        self.done[cell] = record
        self._end(cell, failed=False)

    def _fail(self, cell: Run, error: Exception) -> None:
        self.failed[cell] = error
        self._end(cell, failed=True)

    def _end(self, cell: Run, *, failed: bool) -> None:
        self.display.end(cell, failed=failed)
        self.board.forget(cell.folder)
