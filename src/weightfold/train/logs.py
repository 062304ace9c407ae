"""What a run shows while it trains: a progress bar, TensorBoard, the caller's function."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from weightfold.tasks.measure import ACCURACY, Measure
from weightfold.train.history import PARTS, Row


class Watch:
    """Hears of every step and every epoch.

    Args:
        bar: Shows epoch, step, loss, accuracy and time left; of several data sets, each one's loss
            and accuracy in a line of its own, with the accuracy as its bar.
        listeners: Called with each epoch's row.
        epochs: Epochs of the run.
        steps: Steps in an epoch.
        done: Epochs done before.
        parts: Names of the domains, "" for the only one.
        measure: The first of the task's.
    """

    def __init__(
        self,
        bar: Progress,
        listeners: list[Callable[[Row], None]],
        epochs: int,
        steps: int,
        done: int,
        parts: tuple[str, ...],
        measure: Measure = ACCURACY,
    ) -> None:
        self._measure = measure
        self._bar, self._listeners, self._epochs = bar, listeners, epochs
        self._values = dict.fromkeys(("", *parts), "")
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
        column, domains = f"test_{self._measure.name}", row.domains
        mean = "mean " if domains else ""
        self._values[""] = f"{mean}test {self._measure.text(row.get(column))}"
        self._show("", row.get("train_loss"), mean)
        for domain, values in domains.items():
            value = values.get(column)
            self._values[domain] = f"test {self._measure.text(value)}"
            self._show(domain, values.get("train_loss"))
            if self._measure.share:
                self._bar.update(self._tasks[domain], completed=100 * (value or 0.0))
        for listener in self._listeners:
            listener(row)

    def _show(self, part: str, loss: float | None, mean: str = "") -> None:
        words = ["" if loss is None else f"{mean}loss {loss:.4f}", self._values[part]]
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
    measure: Measure = ACCURACY,
) -> Iterator[Watch]:
    """A `Watch` until the block is left.

    Args:
        progress: True shows a bar on the terminal; a function is called with each epoch's row.
        tensorboard: The folder to write to, if any.
        epochs: Epochs of the run.
        steps: Steps in an epoch.
        done: Epochs done before.
        parts: Names of the domains, "" for the only one.
        measure: The first of the task's.

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
        yield Watch(bar, listeners, epochs, steps, done, parts, measure)


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
        values = {"lr": row.lr, "seconds_per_step": row.seconds_per_step}
        values |= {_tag(column): value for column, value in row.values.items()}
        for name, value in values.items():
            if value is not None:
                writer.add_scalar(name, value, row.epoch)
        writer.flush()

    with SummaryWriter(str(folder), purge_step=done + 1) as writer:
        yield write


def _tag(column: str) -> str:
    """TensorBoard's name of a column: "test_accuracy/birds" is "accuracy/test/birds"."""
    name, slash, domain = column.partition("/")
    part = next((part for part in PARTS if name.startswith(f"{part}_")), None)
    return f"{name if part is None else f'{name[len(part) + 1 :]}/{part}'}{slash}{domain}"
