"""What a run shows while it trains: a progress bar, TensorBoard, the caller's function."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from weightfold.train.history import Row


class Watch:
    """Hears of every step and every epoch.

    Args:
        bar: Shows epoch, step, loss, accuracy and time left.
        listeners: Called with each epoch's row.
        epochs: Epochs of the run.
        steps: Steps in an epoch.
        done: Epochs done before.
    """

    def __init__(
        self,
        bar: Progress,
        listeners: list[Callable[[Row], None]],
        epochs: int,
        steps: int,
        done: int,
    ) -> None:
        self._bar, self._listeners, self._epochs, self._accuracy = bar, listeners, epochs, ""
        self._task = bar.add_task(
            "",
            total=epochs * steps,
            completed=done * steps,
            epoch=f"epoch {done}/{epochs}",
            text="",
        )

    def steps(self, epoch: int, loss: float, count: int) -> None:
        """`count` more steps of this epoch (from 1) are done, the last with this loss."""
        self._bar.update(
            self._task,
            advance=count,
            epoch=f"epoch {epoch}/{self._epochs}",
            text=f"loss {loss:.4f}{self._accuracy}",
        )

    def epoch(self, row: Row) -> None:
        """An epoch is done and on disk."""
        self._accuracy = f", test accuracy {row.test_accuracy:.2%}"
        self._bar.update(self._task, text=f"loss {row.train_loss:.4f}{self._accuracy}")
        for listener in self._listeners:
            listener(row)


@contextmanager
def watching(
    progress: bool | Callable[[Row], None],
    tensorboard: Path | None,
    *,
    epochs: int,
    steps: int,
    done: int,
) -> Iterator[Watch]:
    """A `Watch` until the block is left.

    Args:
        progress: True shows a bar on the terminal; a function is called with each epoch's row.
        tensorboard: The folder to write to, if any.
        epochs: Epochs of the run.
        steps: Steps in an epoch.
        done: Epochs done before.

    Raises:
        ImportError: tensorboard is not installed.
    """
    columns = (
        TextColumn("{task.fields[epoch]}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    with ExitStack() as stack:
        listeners = [] if isinstance(progress, bool) else [progress]
        if tensorboard is not None:
            listeners.append(stack.enter_context(_tensorboard(tensorboard, done)))
        bar = stack.enter_context(Progress(*columns, disable=progress is not True))
        yield Watch(bar, listeners, epochs, steps, done)


@contextmanager
def _tensorboard(folder: Path, done: int) -> Iterator[Callable[[Row], None]]:
    """A function that writes a row's figures as scalars by epoch."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "tensorboard=True needs TensorBoard: pip install 'weightfold[track]'"
        ) from error

    def write(row: Row) -> None:
        figures = {
            "lr": row.lr,
            "loss/train": row.train_loss,
            "accuracy/train": 1 - row.train_error,
            "accuracy/test": row.test_accuracy,
            "accuracy/validation": row.validation_accuracy,
            "seconds_per_step": row.seconds_per_step,
        }
        for name, value in figures.items():
            if value is not None:
                writer.add_scalar(name, value, row.epoch)
        writer.flush()

    with SummaryWriter(str(folder), purge_step=done + 1) as writer:
        yield write
