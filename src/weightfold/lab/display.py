"""What is shown while cells run: a bar for all of them, and one for each that is running."""

from typing import TYPE_CHECKING, Self

from weightfold.lab.run import Run
from weightfold.train.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID


class Display:
    """A context in which the terminal shows how far cells are.

    Args:
        cells: How many there are.
        done: How many of them were finished before.
        shown: False shows nothing.
    """

    def __init__(self, cells: int, done: int, *, shown: bool) -> None:
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
        self._all = self._bars.add_task("cells", total=cells, completed=done, text="")
        self._tasks: dict[Run, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, cell: Run) -> None:
        """A cell is being trained from now on."""
        self._tasks[cell] = self._bars.add_task(cell.title, total=None, text="")

    def show(self, cell: Run, now: Progress) -> None:
        """It has come so far."""
        if cell in self._tasks:
            task = self._tasks[cell]
            self._bars.update(task, completed=now.completed, total=now.total, text=now.text)

    def end(self, cell: Run, *, failed: bool) -> None:
        """It is finished or has failed."""
        if cell in self._tasks:
            self._bars.remove_task(self._tasks.pop(cell))
        if failed:
            self._bars.console.print(f"failed: {cell.folder}", markup=False)
        else:
            self._bars.advance(self._all)
