"""What a training run reports: one row per epoch and the figures drawn from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any, ClassVar, Self

SELECTIONS = {
    False: "test (as the paper; optimistic)",
    True: "validation",
}


@dataclass(frozen=True)
class Row:
    """One epoch. Accuracies and errors are shares in [0, 1]."""

    epoch: int
    """Epochs done, from 1."""
    lr: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean over the augmented images as they were trained on, decay on theta not included."""
    train_error: float
    """Share of those images misclassified, each by the weights of its own step."""
    test_accuracy: float
    """Top-1 accuracy on the test set after the epoch."""
    validation_accuracy: float | None
    """Top-1 accuracy on the validation split after the epoch; None without one."""
    seconds: float
    """Wall time of the epoch, evaluation included, writing to disk not."""
    seconds_per_step: float
    """Median wall time of a training step, data included, evaluation not."""

    @property
    def parts(self) -> Mapping[str, Mapping[str, float | None]]:
        """Figures of each of several data sets under the names above; empty where there is one."""
        return {}

    def flat(self) -> dict[str, float | None]:
        """Column -> value, as metrics.csv has them."""
        return asdict(self)


@dataclass(frozen=True)
class History:
    """The record of a run."""

    row_type: ClassVar[type[Row]] = Row

    rows: tuple[Row, ...]
    """One per epoch done."""
    selection: str
    """By which accuracy the best epoch was chosen: one of `SELECTIONS`' values."""
    final_train_error: float | None = None
    """Error on the training images without augmentation after the last epoch; None: unfinished."""

    @property
    def best(self) -> Row:
        """The first row of the highest validation accuracy, or without a split test accuracy."""
        return max(self.rows, key=selected)

    @property
    def best_epoch(self) -> int:
        """The best row's epoch."""
        return self.best.epoch

    @property
    def best_accuracy(self) -> float:
        """Test accuracy at the best epoch."""
        return self.best.test_accuracy

    @property
    def last_accuracy(self) -> float:
        """Test accuracy after the last epoch."""
        return self.rows[-1].test_accuracy

    @property
    def seconds_per_step(self) -> float:
        """Median of the epochs' median step times."""
        return median(row.seconds_per_step for row in self.rows)

    @property
    def seconds(self) -> float:
        """Wall time of all epochs, evaluation included."""
        return sum(row.seconds for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Everything, the derived figures included, as `from_json` reads it."""
        return {
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
            "last_accuracy": self.last_accuracy,
            "seconds_per_step": self.seconds_per_step,
            "seconds": self.seconds,
            **asdict(self),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `as_json`."""
        given: dict[str, Any] = {field.name: data[field.name] for field in fields(cls)}
        given["rows"] = tuple(cls.row_type(**row) for row in data["rows"])
        return cls(**given)


def selected(row: Row) -> float:
    """The accuracy by which the best epoch is chosen."""
    return row.test_accuracy if row.validation_accuracy is None else row.validation_accuracy
