"""What is shown while cells run: a bar for all of them, and one for each that is running."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Self

from weightfold.lab.executors.board import Board
from weightfold.lab.run import Run
from weightfold.train.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

LOOK_SECONDS = 0.5


class Display:
    """A context in which the terminal shows how far cells are.

    Args:
        cells: Those that are to be run.
        done: How many more were finished before.
        shown: False shows nothing.
    """

    def __init__(self, cells: Sequence[Run], done: int, *, shown: bool) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(),
            disable=not shown,
        )
        self._all = self._bars.add_task("cells", total=len(cells) + done, completed=done, text="")
        self._unfinished = {cell.folder: cell for cell in cells}
        self._tasks: dict[str, TaskID] = {}
        self._lock = Lock()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def following(self, board: Board) -> Iterator[None]:
        """Inside, what a board says is shown, read by a thread."""
        over = Event()

        def follow() -> None:
            while not over.wait(LOOK_SECONDS):
                with suppress(OSError):  # a shared folder that hangs for a moment
                    self.show(board.read())

        thread = Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def show(self, found: Mapping[str, Progress]) -> None:
        """Cells have come so far: folder -> how far."""
        with self._lock:
            for name, now in found.items():
                if name not in self._unfinished:
                    continue
                if name not in self._tasks:
                    title = self._unfinished[name].title
                    self._tasks[name] = self._bars.add_task(title, total=None, text="")
                self._bars.update(
                    self._tasks[name],
                    completed=now.completed,
                    total=now.total or None,
                    text=now.text,
                )
            self._count()

    def stop(self, cell: Run) -> None:
        """It is not running at the moment."""
        with self._lock:
            if cell.folder in self._tasks:
                self._bars.remove_task(self._tasks.pop(cell.folder))

    def _count(self) -> None:
        waiting = len(self._unfinished) - len(self._tasks)
        self._bars.update(self._all, text=f"{len(self._tasks)} running, {waiting} waiting")

    def end(self, cell: Run, *, failed: bool) -> None:
        """It is finished or has failed."""
        self.stop(cell)
        with self._lock:
            self._unfinished.pop(cell.folder, None)
            self._count()
        if failed:
            self._bars.console.print(f"failed: {cell.folder}", markup=False)
        else:
            self._bars.advance(self._all)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, markup=False)
