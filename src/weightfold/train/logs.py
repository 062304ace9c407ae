"""What a run shows while it trains: a progress bar, and TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from weightfold.files import explained
from weightfold.train.callbacks import Callback
from weightfold.train.context import Context
from weightfold.train.history import PARTS, Row

COLUMNS = (
    TextColumn("{task.fields[epoch]}"),
    BarColumn(bar_width=None),
    MofNCompleteColumn(),
    TextColumn("{task.fields[text]}"),
    TimeRemainingColumn(),
)


class Bar(Callback):
    """Shows epoch, step, loss, first measure and time left of the first run.

    Of several domains, each one's loss and measure stand in a line of its own, with the measure as
    its bar if it is a share.

    Args:
        bar: Where; None: the terminal.
    """

    def __init__(self, bar: Progress | None = None) -> None:
        super().__init__()
        self._bar = Progress(*COLUMNS) if bar is None else bar

    def on_start(self, context: Context) -> None:
        """Draw it."""
        strategy = context.strategy
        self._measure, self._epochs = context.histories[0].measure, strategy.epochs
        self._values = dict.fromkeys(("", *strategy.domains), "")
        self._tasks = {
            "": self._bar.add_task(
                "",
                total=strategy.epochs * strategy.steps_per_epoch,
                completed=context.step,
                epoch=f"epoch {context.epoch}/{strategy.epochs}",
                text="",
            )
        } | {
            domain: self._bar.add_task("", total=100, epoch=domain, text="")
            for domain in strategy.domains
            if domain
        }
        self._bar.start()

    def on_step(self, context: Context, losses: Mapping[str, float], count: int) -> None:
        """Move it on."""
        epoch = -(-context.step // context.strategy.steps_per_epoch)
        self._bar.update(self._tasks[""], advance=count, epoch=f"epoch {epoch}/{self._epochs}")
        for domain, loss in losses.items():
            self._show(domain, loss)

    def on_row(self, context: Context, names: tuple[str, ...]) -> None:
        """Show the measure."""
        self.show(context.rows[0])

    def show(self, row: Row) -> None:
        """Show a row's loss and measure."""
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

    def on_end(self, context: Context) -> None:
        """Leave it as it is."""
        self._bar.stop()

    def _show(self, domain: str, loss: float | None, mean: str = "") -> None:
        words = ["" if loss is None else f"{mean}loss {loss:.4f}", self._values[domain]]
        self._bar.update(self._tasks[domain], text=", ".join(filter(None, words)))


class TensorBoard(Callback):
    """Writes the values of the first run as scalars by epoch.

    Args:
        folder: To write to.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "tensorboard=True needs TensorBoard: pip install 'weightfold[track]'"
            ) from error
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def on_start(self, context: Context) -> None:
        """Open the folder; what was written after the checkpoint is void."""
        self._writer = self._make(str(self._folder), purge_step=context.epoch + 1)

    def on_row(self, context: Context, names: tuple[str, ...]) -> None:
        """Write the row."""
        row = context.rows[0]
        values = {"lr": row.lr, "seconds_per_step": row.seconds_per_step}
        values |= {_tag(column): value for column, value in row.values.items()}
        with explained(self._folder, "writing for TensorBoard"):
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, row.epoch)
            self._writer.flush()

    def on_end(self, context: Context) -> None:
        """Close it."""
        self._writer.close()


def _tag(column: str) -> str:
    """TensorBoard's name of a column: "test_accuracy/birds" is "accuracy/test/birds"."""
    name, slash, domain = column.partition("/")
    part = next((part for part in PARTS if name.startswith(f"{part}_")), None)
    return f"{name if part is None else f'{name[len(part) + 1 :]}/{part}'}{slash}{domain}"
