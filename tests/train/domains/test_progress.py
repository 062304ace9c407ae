import io
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress, TextColumn

from weightfold.train import Context, History, Row
from weightfold.train.logs import Bar


@dataclass
class TwoDomains:
    """What the bar asks a strategy."""

    domains: tuple[str, ...] = ("birds", "cars")
    epochs: int = 2
    steps_per_epoch: int = 3


def context(step, rows=()):
    history = History(tuple(rows), "test")
    return Context(("",), step, step // 3, (history,), (False,), TwoDomains())


def test_every_domain_has_a_line_with_its_latest_loss_and_accuracy():
    screen = Console(file=io.StringIO(), width=120)
    progress = Progress(TextColumn("{task.fields[epoch]} {task.fields[text]}"), console=screen)
    bar = Bar(progress)
    bar.on_start(context(0))

    def shown():
        tasks = progress.tasks
        return [f"{task.fields['epoch']} {task.fields['text']}".strip() for task in tasks]

    bar.on_step(context(1), {"birds": 1.5}, 1)
    assert shown() == ["epoch 1/2", "birds loss 1.5000", "cars"]
    bar.on_step(context(2), {"birds": 1.5, "cars": 0.25}, 1)
    assert shown()[2] == "cars loss 0.2500"
    values = {
        "train_loss": 1.0,
        "test_accuracy": 0.75,
        "train_loss/birds": 1.0,
        "test_accuracy/birds": 0.5,
        "train_loss/cars": None,
        "test_accuracy/cars": 1.0,
    }
    row = Row(epoch=1, lr=0.1, seconds=1.0, seconds_per_step=0.1, values=values, step=3)
    bar.on_row(context(3, [row]), ("",))
    assert shown() == [
        "epoch 1/2 mean loss 1.0000, mean test accuracy 75.00%",
        "birds loss 1.0000, test accuracy 50.00%",
        "cars test accuracy 100.00%",
    ]
    assert [task.completed for task in progress.tasks] == [2, 50, 100]
    bar.on_step(context(4), {"birds": 0.5}, 1)
    assert shown()[1] == "birds loss 0.5000, test accuracy 50.00%"
    bar.on_end(context(4))
