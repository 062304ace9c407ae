"""What a run shows while it trains: a progress bar, TensorBoard, the caller's function."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from weightfold.files import explained
from weightfold.train.history import Row


class Watch:
    """Hears of every step and every epoch.

    Args:
        bar: Shows epoch, step, loss, accuracy and time left; of several data sets, each one's loss
            and accuracy in a line of its own, with the accuracy as its bar.
        listeners: Called with each epoch's row.
        epochs: Epochs of the run.
        steps: Steps in an epoch.
        done: Epochs done before.
        parts: Names of the data sets, "" for the only one.
    """

    def __init__(
        self,
        bar: Progress,
        listeners: list[Callable[[Row], None]],
        epochs: int,
        steps: int,
        done: int,
        parts: tuple[str, ...],
    ) -> None:
        self._bar, self._listeners, self._epochs = bar, listeners, epochs
        self._accuracy = dict.fromkeys(("", *parts), "")
        self._task = bar.add_task(
            "",
            total=epochs * steps,
            completed=done * steps,
            epoch=f"epoch {done}/{epochs}",
            text="",
        )
        self._tasks = {"": self._task} | {
            part: bar.add_task("", total=100, epoch=part, text="") for part in parts if part
        }

    def steps(self, epoch: int, losses: Mapping[str, float], count: int) -> None:
        """`count` more steps of this epoch (from 1) are done; with each data set's latest loss."""
        self._bar.update(self._task, advance=count, epoch=f"epoch {epoch}/{self._epochs}")
        for part, loss in losses.items():
            self._show(part, loss)

    def epoch(self, row: Row) -> None:
        """An epoch is done and on disk."""
        mean = "mean " if row.parts else ""
        self._accuracy[""] = f"{mean}test accuracy {row.test_accuracy:.2%}"
        self._show("", row.train_loss, mean)
        for part, figures in row.parts.items():
            accuracy = figures["test_accuracy"] or 0.0
            self._accuracy[part] = f"test accuracy {accuracy:.2%}"
            self._show(part, figures["train_loss"])
            self._bar.update(self._tasks[part], completed=100 * accuracy)
        for listener in self._listeners:
            listener(row)

    def _show(self, part: str, loss: float | None, mean: str = "") -> None:
        words = ["" if loss is None else f"{mean}loss {loss:.4f}", self._accuracy[part]]
        self._bar.update(self._tasks[part], text=", ".join(filter(None, words)))


@contextmanager
def watching(
    progress: bool | Callable[[Row], None],
    tensorboard: Path | None,
    *,
    epochs: int,
    steps: int,
    done: int,
    parts: tuple[str, ...] = ("",),
) -> Iterator[Watch]:
    """A `Watch` until the block is left.

    Args:
        progress: True shows a bar on the terminal; a function is called with each epoch's row.
        tensorboard: The folder to write to, if any.
        epochs: Epochs of the run.
        steps: Steps in an epoch.
        done: Epochs done before.
        parts: Names of the data sets, "" for the only one.

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
        yield Watch(bar, listeners, epochs, steps, done, parts)


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
        figures = {"lr": row.lr, "seconds_per_step": row.seconds_per_step}
        for part, given in {"": asdict(row), **row.parts}.items():
            error, end = given["train_error"], f"/{part}" if part else ""
            figures |= {
                f"loss/train{end}": given["train_loss"],
                f"accuracy/train{end}": None if error is None else 1 - error,
                f"accuracy/test{end}": given["test_accuracy"],
                f"accuracy/validation{end}": given["validation_accuracy"],
            }
        with explained(folder, "writing for TensorBoard"):
            for name, value in figures.items():
                if value is not None:
                    writer.add_scalar(name, value, row.epoch)
            writer.flush()

    with SummaryWriter(str(folder), purge_step=done + 1) as writer:
        yield write
