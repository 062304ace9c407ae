"""Which examples were right when, over epochs and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Table = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class Correctness:
    """Every example of a training set in several runs, epoch by epoch.

    Attributes:
        condition: What the data was, of `weightfold.data.disturb.CONDITIONS`.
        seeds: Of the runs.
        right: bool (seeds, epochs + 1, examples): classified as labelled, in eval mode. The first
            epoch is 0, before the first step.
        labels: int64 (examples,), as trained on.
        labels_changed: bool (examples,): the label is not the data's own.
        inputs_changed: bool (examples,): the input is not the data's own.
    """

    condition: str
    seeds: tuple[int, ...]
    right: np.ndarray
    labels: np.ndarray
    labels_changed: np.ndarray
    inputs_changed: np.ndarray

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return self.right.shape[1] - 1

    @property
    def first_learnt(self) -> np.ndarray:
        """First epoch, from 1, after which an example was right; 0: never. int64 (seeds, N)."""
        after = self.right[:, 1:]
        return np.where(after.any(axis=1), after.argmax(axis=1) + 1, 0)

    @property
    def forgotten(self) -> np.ndarray:
        """How often an example was right after an epoch and wrong after the next. (seeds, N).

        The forgetting events of Toneva et al. 2019 (arXiv:1812.05159), counted by epochs from 1.
        """
        return self._lost().sum(axis=1)

    @property
    def kept(self) -> np.ndarray:
        """Whether an example was right after epoch 1 and ever after. bool (seeds, examples)."""
        return np.logical_and.reduce(self.right[:, 1:], axis=1)

    def _lost(self) -> np.ndarray:
        return self.right[:, 1:-1] & ~self.right[:, 2:]

    def totals(self) -> "Totals":
        """The sums that figures and sentences are made of."""
        learnt = self.first_learnt[:, :, None] == np.arange(1, self.epochs + 1)
        lost = self._lost().mean(axis=2)
        runs = len(self.seeds)
        return Totals(
            condition=self.condition,
            seeds=self.seeds,
            examples=self.right.shape[2],
            labels_changed=int(self.labels_changed.sum()),
            inputs_changed=int(self.inputs_changed.sum()),
            right=_table(self.right.mean(axis=2)),
            kept=_table(np.logical_and.accumulate(self.right[:, 1:], axis=1).mean(axis=2)),
            learnt=_table(learnt.mean(axis=1)),
            forgotten=_table(np.concatenate([np.zeros((runs, 1)), lost], axis=1)),
            after_one=tuple(np.bincount(self.right[:, 1].sum(axis=0), minlength=runs + 1).tolist()),
            kept_in_all=int(self.kept.all(axis=0).sum()),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """What `ExampleLedger.save` writes, by name; `right` as bits, from numpy.packbits."""
        return {
            "seeds": np.array(self.seeds),
            "right": np.packbits(self.right, axis=2),
            "first_learnt": self.first_learnt.astype(np.int32),
            "forgotten": self.forgotten.astype(np.int32),
            "kept": self.kept,
            "labels": self.labels,
            "labels_changed": self.labels_changed,
            "inputs_changed": self.inputs_changed,
        }

    def examples(self) -> list[dict[str, Any]]:
        """A line for each example: its totals over the runs."""
        first, forgotten, kept = self.first_learnt, self.forgotten, self.kept
        columns: dict[str, np.ndarray] = {
            "example": np.arange(len(self.labels)),
            "label": self.labels,
            "label_changed": self.labels_changed.astype(int),
            "input_changed": self.inputs_changed.astype(int),
            "runs_right_after_epoch_1": self.right[:, 1].sum(axis=0),
            "runs_right_ever_after": kept.sum(axis=0),
            "runs_never_right": (first == 0).sum(axis=0),
            "mean_forgotten": forgotten.mean(axis=0),
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [
            {"condition": self.condition, **dict(zip(columns, row, strict=True))} for row in rows
        ]


@dataclass(frozen=True)
class Totals:
    """Sums over the examples of a `Correctness`. Tables have a row a run; shares are in [0, 1].

    Attributes:
        condition: As of `Correctness`.
        seeds: Of the runs.
        examples: In the training set.
        labels_changed: How many of them have another label than the data's own.
        inputs_changed: How many another input.
        right: Share right after epoch 0, 1, 2, ...
        kept: Share right after each epoch from 1 to this one; from epoch 1.
        learnt: Share right for the first time; from epoch 1.
        forgotten: Share that was right an epoch before and is wrong; from epoch 1, there 0.
        after_one: How many examples were right after epoch 1 in 0, 1, 2, ... of the runs.
        kept_in_all: How many were right after epoch 1 and ever after in every run.
    """

    condition: str
    seeds: tuple[int, ...]
    examples: int
    labels_changed: int
    inputs_changed: int
    right: Table
    kept: Table
    learnt: Table
    forgotten: Table
    after_one: tuple[int, ...]
    kept_in_all: int

    @property
    def title(self) -> str:
        """In words."""
        return self.condition.replace("-", " ")

    @property
    def chance_right(self) -> float:
        """Share of (example, run) pairs that are right after epoch 1."""
        runs = len(self.seeds)
        return sum(k * count for k, count in enumerate(self.after_one)) / (runs * self.examples)

    @property
    def dispersion(self) -> float:
        """How much more examples differ than by luck, after epoch 1.

        Variance over examples of the number of runs that are right, over that of a binomial of the
        mean share: 1 if all examples are equally hard (Arpit et al. 2017, Figure 1). NaN if all are
        right, or none.
        """
        return float(_dispersion(np.array([self.after_one], dtype=float))[0])

    def dispersion_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of `dispersion` over draws of the examples."""
        counts = np.array(self.after_one, dtype=float)
        drawn = np.random.default_rng(0).multinomial(self.examples, counts / counts.sum(), 2000)
        low, high = np.quantile(_dispersion(drawn), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def _table(rows: np.ndarray | Sequence[Sequence[float]]) -> Table:
    return tuple(tuple(float(value) for value in row) for row in rows)


def _dispersion(counts: np.ndarray) -> np.ndarray:
    """Of each row: how many examples were right in 0, 1, ..., n runs."""
    runs = counts.shape[1] - 1
    k, total = np.arange(runs + 1), counts.sum(axis=1)
    mean = counts @ k / total
    variance = (counts * (k - mean[:, None]) ** 2).sum(axis=1) / (total - 1)
    share = mean / runs
    with np.errstate(divide="ignore", invalid="ignore"):
        return variance / (runs * share * (1 - share))
