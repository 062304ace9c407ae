"""How much the gradients of mini-batches disagree over a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, pi, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.report.figures import COLOURS, draw_curve, drawing
from weightfold.report.numbers import mean_and_spread
from weightfold.report.statistics import summarize

SPACES = {"psi": "factor space", "theta": "folded space"}
"""Coordinates -> as figures call them: what is trained, and the deployed weights."""


@dataclass(frozen=True)
class Gradients:
    """The gradients of mini-batches at the ends of a seed's epochs.

    Attributes:
        seed: Of network and data order.
        train: Error while training, in percent, from epoch 1.
        test: Error on the test set, in percent, from epoch 1.
        minimum: Space -> smallest cosine of all pairs at the end of each epoch.
        last: Space -> the cosines of all pairs at the end of training.
    """

    seed: int
    train: tuple[float, ...]
    test: tuple[float, ...]
    minimum: Mapping[str, tuple[float, ...]]
    last: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Confusion(Finding):
    """Cosines of the gradients of pairs of mini-batches (Sankararaman et al. 2019).

    Attributes:
        network: Class and size of the network.
        data: Name of the data.
        pairs: At each epoch.
        batch: Examples in a mini-batch.
        spaces: Those measured: "theta", and "psi" of a Charted net.
        runs: One for each seed.
        recipe: How they were trained.
    """

    probe: ClassVar[str] = "confusion"
    network: str
    data: str
    pairs: int
    batch: int
    spaces: tuple[str, ...]
    runs: tuple[Gradients, ...]
    recipe: Mapping[str, Any]

    def minimum(self, space: str) -> list[float]:
        """Smallest cosine at the end of training, of each seed; higher is less confusion."""
        return [run.minimum[space][-1] for run in self.runs]

    def mean(self, space: str) -> list[float]:
        """Mean over the epochs of the smallest cosine, of each seed."""
        return [fmean(run.minimum[space]) for run in self.runs]

    @property
    def headline(self) -> str:
        """The answer in words."""
        told = [
            f"{mean_and_spread(summarize(self.minimum(space)), 3)} in {SPACES[space]}"
            for space in self.spaces
        ]
        return (
            f"At the end of training the smallest cosine of the gradients of {self.pairs} pairs of "
            f"mini-batches is {', '.join(told)} (higher is less confusion)."
        )

    @property
    def meaning(self) -> str:
        """What it means."""
        return (
            "Where the gradients of two mini-batches point against each other, a step for one "
            "undoes a step for the other. The smallest cosine over random pairs says how badly. In "
            "factor space the gradient is that of an expansion's factors, in folded space that of "
            "the compact network's weights: only the second compares with a compact network."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each seed, epoch and space."""
        return [
            {
                "seed": run.seed,
                "epoch": epoch,
                "space": space,
                "minimum_cosine": value,
                "train_error": run.train[epoch - 1],
                "test_error": run.test[epoch - 1],
            }
            for run in self.runs
            for space in self.spaces
            for epoch, value in enumerate(run.minimum[space], 1)
        ]

    def draw(self, path: Path) -> None:
        """Errors, smallest cosines and densities."""
        draw_confusion({"": self}, path)


def draw_confusion(found: Mapping[str, Confusion], path: Path) -> None:
    """Errors by epoch, the smallest cosine by epoch, and the density at the end: Figure 3.

    Args:
        found: Name -> finding, each in its colours.
        path: PNG file.
    """
    with drawing(path, figsize=(15, 4.4), ncols=3) as (figure, axes):
        place = 0
        for index, (name, one) in enumerate(found.items()):
            before = f"{name}, " if name else ""
            draw_curve(axes[0], 2 * index, f"{before}training", [r.train for r in one.runs])
            draw_curve(axes[0], 2 * index + 1, f"{before}test", [r.test for r in one.runs])
            for space in one.spaces:
                called = before + SPACES[space]
                draw_curve(axes[1], place, called, [r.minimum[space] for r in one.runs])
                cosines = [c for r in one.runs for c in r.last[space]]
                at, values = density(cosines)
                axes[2].plot(at, values, color=COLOURS[place % len(COLOURS)], label=called)
                place += 1
        axes[0].set(xlabel="epoch", ylabel="error (%)")
        axes[1].set(xlabel="epoch", ylabel="smallest cosine")
        axes[2].set(xlabel="cosine, end of training", ylabel="density")
        for axis in axes:
            axis.grid(alpha=0.3)
            axis.legend(fontsize="x-small")
        figure.suptitle(next(iter(found.values())).data, fontsize="medium")


def density(values: list[float]) -> tuple[list[float], list[float]]:
    """Gaussian kernel density, the width by Scott's rule: places and values."""
    width = max((stdev(values) if len(values) > 1 else 0) * len(values) ** -0.2, 1e-3)
    low, high = min(values) - 3 * width, max(values) + 3 * width
    at = [low + i * (high - low) / 200 for i in range(201)]
    scale = 1 / (len(values) * width * sqrt(2 * pi))
    return at, [scale * sum(exp(-0.5 * ((x - v) / width) ** 2) for v in values) for x in at]
