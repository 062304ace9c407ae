"""What a training run on several domains reports."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from weightfold.train.history import History, Row

Figures = dict[str, float | None]
"""`train_loss`, `train_error`, `test_accuracy` and `validation_accuracy` as in `Row`, and `weight`,
the factor of the domain's loss; the first two are None if the epoch had no batch of the domain."""


@dataclass(frozen=True)
class DomainsRow(Row):
    """One epoch. The figures of `Row` are means over domains, those without a batch left out."""

    domains: dict[str, Figures]
    """By domain."""

    @property
    def parts(self) -> dict[str, Figures]:
        """The figures of each domain."""
        return self.domains

    def flat(self) -> dict[str, float | None]:
        """Column -> value; a domain's are called as `test_accuracy/birds`."""
        means = {name: value for name, value in asdict(self).items() if name != "domains"}
        return means | {
            f"{figure}/{domain}": value
            for domain, figures in self.domains.items()
            for figure, value in figures.items()
        }


@dataclass(frozen=True)
class DomainsHistory(History):
    """The record of a run on several domains; the best epoch is that of the best mean accuracy."""

    row_type: ClassVar[type[Row]] = DomainsRow

    rows: tuple[DomainsRow, ...]
    """One per epoch done."""
    final_train_errors: dict[str, float] | None = None
    """By domain, the error on its training images without augmentation after the last epoch."""

    @property
    def best_accuracies(self) -> dict[str, float]:
        """By domain, test accuracy at the best epoch."""
        return _accuracies(self.rows[self.best_epoch - 1])

    @property
    def last_accuracies(self) -> dict[str, float]:
        """By domain, test accuracy after the last epoch."""
        return _accuracies(self.rows[-1])

    def as_json(self) -> dict[str, Any]:
        """As in `History`, with the accuracies by domain."""
        given = {"best_accuracies": self.best_accuracies, "last_accuracies": self.last_accuracies}
        return given | super().as_json()


def _accuracies(row: DomainsRow) -> dict[str, float]:
    return {name: figures["test_accuracy"] or 0.0 for name, figures in row.domains.items()}
