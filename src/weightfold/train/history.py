"""What a training run reports: a row at each measurement, and the figures drawn from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, Self

from weightfold.tasks.measure import ACCURACY, Measure

SELECTIONS = {
    False: "test (as the paper; optimistic)",
    True: "validation",
}
PARTS = ("train_eval", "train", "test", "validation")
"""Of columns, such as "test_accuracy". train: of the examples as they were trained on, each by the
weights of its own step, the loss without decay; train_eval: of the training examples as they are,
in eval mode; test and validation in eval mode."""

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Row:
    """One measurement."""

    epoch: int
    """Whole epochs done."""
    lr: float | None
    """Learning rate of the last step; None before the first."""
    seconds: float
    """Wall time since the row before, evaluation included, writing to disk not."""
    seconds_per_step: float | None
    """Median wall time of a training step, data included, evaluation not; None without a step."""
    values: Values
    """Column -> value: a part (one of `PARTS`) and a measure or the loss, as "test_accuracy"; of
    one of several domains as "test_accuracy/birds", beside the domains' mean. None: not known, as
    of a domain the epoch had no batch of."""
    step: int | None = None
    """Optimizer steps done."""

    def __getitem__(self, column: str) -> float:
        """The value of a column.

        Raises:
            KeyError: There is none.
        """
        value = self.values.get(column)
        if value is None:
            raise KeyError(
                f"no {column!r} at epoch {self.epoch}; there is {', '.join(self.values)}"
            )
        return value

    def get(self, column: str) -> float | None:
        """The value of a column; None if there is none."""
        return self.values.get(column)

    @property
    def domains(self) -> Mapping[str, Values]:
        """By domain, its values under the columns' names without it; empty where there is one."""
        found: dict[str, dict[str, float | None]] = {}
        for column, value in self.values.items():
            name, slash, domain = column.partition("/")
            if slash:
                found.setdefault(domain, {})[name] = value
        return found

    def flat(self) -> dict[str, float | None]:
        """Column -> value, as metrics.csv has them."""
        row = {name: value for name, value in asdict(self).items() if name != "values"}
        return {name: value for name, value in row.items() if value is not None} | dict(self.values)

    @classmethod
    def from_flat(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `flat`; takes rows of version 0.1 too."""
        given = dict(row)
        for domain, values in given.pop("domains", {}).items():
            given |= {f"{column}/{domain}": value for column, value in values.items()}
        own = {name: given.pop(name, None) for name in ("step", "lr", "seconds_per_step")}
        head = {name: given.pop(name) for name in ("epoch", "seconds")}
        return cls(**head, **own, values=_renamed(given))


def _renamed(values: Values) -> dict[str, float | None]:
    """Errors, which version 0.1 had for some columns, as accuracies."""
    found = {}
    for column, value in values.items():
        if column.startswith("train_error"):
            column = column.replace("train_error", "train_accuracy")
            value = None if value is None else 1 - value
        found[column] = value
    return found


@dataclass(frozen=True)
class History:
    """The record of a run."""

    rows: tuple[Row, ...]
    """In order."""
    selection: str
    """By which part the best row is chosen: one of `SELECTIONS`' values."""
    measures: tuple[Measure, ...] = (ACCURACY,)
    """Of the task; the first decides the best row."""
    finished: bool = False
    """Whether the run came to its end."""
    failed: str = ""
    """Where its loss became NaN or infinite; "" if it never did."""
    name: str = field(default="", compare=False)
    """Of one of several runs trained together."""
    steps_per_epoch: int | None = None
    """Optimizer steps of a pass over the training set."""

    @property
    def measure(self) -> Measure:
        """The first of the measures."""
        return self.measures[0]

    @property
    def best(self) -> Row:
        """The first row of the best validation value, or without such a part test value."""
        name = self.measure.name
        chosen = [
            row.get(f"test_{name}") if (v := row.get(f"validation_{name}")) is None else v
            for row in self.rows
        ]
        return self.rows[self.measure.best(chosen)]

    @property
    def best_epoch(self) -> int:
        """The best row's epoch."""
        return self.best.epoch

    @property
    def best_value(self) -> float:
        """The first measure on the test set at the best row."""
        return self.best[f"test_{self.measure.name}"]

    @property
    def last_value(self) -> float:
        """The first measure on the test set at the last row."""
        return self.last()

    def last(self, measure: str | None = None, part: str = "test") -> float:
        """A measure, or "loss", at the last row.

        Args:
            measure: Its name; None: the first.
            part: One of `PARTS`.

        Raises:
            KeyError: It is not known.
        """
        return self.rows[-1][f"{part}_{measure or self.measure.name}"]

    @property
    def best_values(self) -> dict[str, float]:
        """By domain, the first measure on the test set at the best row."""
        return self._by_domain(self.best)

    @property
    def last_values(self) -> dict[str, float]:
        """By domain, the first measure on the test set at the last row."""
        return self._by_domain(self.rows[-1])

    def _by_domain(self, row: Row) -> dict[str, float]:
        column = f"test_{self.measure.name}"
        return {name: values[column] or 0.0 for name, values in row.domains.items()}

    @property
    def seconds_per_step(self) -> float:
        """Median of the rows' median step times; 0 before the first step."""
        times = [row.seconds_per_step for row in self.rows if row.seconds_per_step is not None]
        return median(times or [0.0])

    @property
    def seconds(self) -> float:
        """Wall time of all rows, evaluation included."""
        return sum(row.seconds for row in self.rows)

    def extended(self, row: Row) -> Self:
        """With one row more."""
        return replace(self, rows=(*self.rows, row))

    def completed(self, values: Values) -> Self:
        """Finished, with more values in the last row."""
        last = replace(self.rows[-1], values={**self.rows[-1].values, **values})
        return replace(self, rows=(*self.rows[:-1], last), finished=True)

    def as_json(self) -> dict[str, Any]:
        """Everything, the derived figures included, as `from_json` reads it."""
        name = self.measure.name
        domains = {"best_values": self.best_values, "last_values": self.last_values}
        return {
            "best_epoch": self.best_epoch,
            f"best_{name}": self.best.get(f"test_{name}"),
            f"last_{name}": self.rows[-1].get(f"test_{name}"),
            **(domains if self.rows[-1].domains else {}),
            "seconds_per_step": self.seconds_per_step,
            "seconds": self.seconds,
            **{name: value for name, value in asdict(self).items() if name != "rows"},
            "rows": [row.flat() for row in self.rows],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `as_json`; reads files of version 0.1 too."""
        history = cls(
            tuple(Row.from_flat(row) for row in data["rows"]),
            data["selection"],
            tuple(Measure(**measure) for measure in data.get("measures", [asdict(ACCURACY)])),
            data.get("finished", False),
            data.get("failed", ""),
            data.get("name", ""),
            data.get("steps_per_epoch"),
        )
        error = data.get("final_train_error")
        if error is None:
            return history
        errors = {"": error} | {f"/{n}": e for n, e in data.get("final_train_errors", {}).items()}
        return history.completed({f"train_eval_accuracy{n}": 1 - e for n, e in errors.items()})
