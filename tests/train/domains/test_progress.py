import io

from rich.console import Console
from rich.progress import Progress, TextColumn

from weightfold.train.history import Row
from weightfold.train.logs import Watch


def test_every_domain_has_a_line_with_its_latest_loss_and_accuracy():
    screen = Console(file=io.StringIO(), width=120)
    bar = Progress(TextColumn("{task.fields[epoch]} {task.fields[text]}"), console=screen)
    rows = []
    watch = Watch(bar, [rows.append], epochs=2, steps=3, done=0, parts=("birds", "cars"))

    def shown():
        return [f"{task.fields['epoch']} {task.fields['text']}".strip() for task in bar.tasks]

    watch.steps(1, {"birds": 1.5}, 1)
    assert shown() == ["epoch 1/2", "birds loss 1.5000", "cars"]
    watch.steps(1, {"birds": 1.5, "cars": 0.25}, 1)
    assert shown()[2] == "cars loss 0.2500"
    values = {
        "train_loss": 1.0,
        "test_accuracy": 0.75,
        "train_loss/birds": 1.0,
        "test_accuracy/birds": 0.5,
        "train_loss/cars": None,
        "test_accuracy/cars": 1.0,
    }
    row = Row(epoch=1, lr=0.1, seconds=1.0, seconds_per_step=0.1, values=values)
    watch.epoch(row)
    assert rows == [row]
    assert shown() == [
        "epoch 1/2 mean loss 1.0000, mean test accuracy 75.00%",
        "birds loss 1.0000, test accuracy 50.00%",
        "cars test accuracy 100.00%",
    ]
    assert [task.completed for task in bar.tasks] == [2, 50, 100]
    watch.steps(2, {"birds": 0.5}, 1)
    assert shown()[1] == "birds loss 0.5000, test accuracy 50.00%"
