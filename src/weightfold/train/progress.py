"""How far a probe is, told to whoever shows it. Imports no torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far something is.

    Attributes:
        completed: Of `total`, in any unit.
        total: May grow while the end is not known.
        text: What is being done, in a few words.
    """

    completed: float
    total: float
    text: str = ""


ProgressCallback = Callable[[Progress], None]


@contextmanager
def progress_bar(progress: bool | ProgressCallback, title: str) -> Iterator[ProgressCallback]:
    """A function that is to be called with how far one is, until the block is left.

    Args:
        progress: True shows a bar on the terminal, False nothing; a function is called in the
            bar's stead.
        title: Stands before the bar.
    """
    if callable(progress):
        yield progress
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(),
    )
    with Bars(*columns, disable=not progress) as bars:
        task = bars.add_task(title, total=None, text="")

        def show(now: Progress) -> None:
            bars.update(task, completed=now.completed, total=now.total, text=now.text)

        yield show
