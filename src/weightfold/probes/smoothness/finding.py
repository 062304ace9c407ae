"""How smooth the loss was along a training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.probes.smoothness.measure import Histograms, Moment
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import mean_and_spread
from weightfold.report.statistics import summarize


@dataclass(frozen=True)
class Course:
    """The training of a seed.

    Attributes:
        seed: Of network and data order.
        train: Accuracy (or the task's first measure) while training, from epoch 1.
        test: The same on the test set, from epoch 0.
        moments: By step.
        histograms: Of some layers' outputs.
    """

    seed: int
    train: tuple[float | None, ...]
    test: tuple[float | None, ...]
    moments: tuple[Moment, ...]
    histograms: tuple[Histograms, ...]

    def mean(self, of: Callable[[Moment], float | None]) -> float:
        """Median of a figure over the moments after the first step."""
        return median(v for m in self.moments if m.step and (v := of(m)) is not None)


@dataclass(frozen=True, kw_only=True)
class Smoothness(Finding):
    """Loss and gradient along the steps of training (Santurkar et al. 2018, Figures 1, 2 and 4).

    Attributes:
        network: Class and size of the network.
        data: Name of the data.
        lr: Learning rate at the start, also of the step by which layers below are moved.
        batch: Examples of the batch that is looked at.
        measure: Of accuracy.
        courses: One for each seed.
        recipe: How they were trained.
    """

    probe: ClassVar[str] = "smoothness"
    network: str
    data: str
    lr: float
    batch: int
    measure: str
    courses: tuple[Course, ...]
    recipe: Mapping[str, Any]

    def each(self, of: Callable[[Moment], float | None]) -> list[float]:
        """Median over the training of a figure, of each seed."""
        return [course.mean(of) for course in self.courses]

    @property
    def beta(self) -> list[float]:
        """Effective smoothness: the median over training, of each seed."""
        return self.each(lambda m: m.beta)

    @property
    def loss_range(self) -> list[float]:
        """Highest less lowest loss within 0.4 gradients: the median over training, of each seed."""
        return self.each(lambda m: m.losses[1] - m.losses[0])

    @property
    def gradient_range(self) -> list[float]:
        """Largest less smallest change of the gradient: the median over training, of each seed."""
        return self.each(lambda m: m.changes[1] - m.changes[0])

    @property
    def shift(self) -> list[float]:
        """Mean internal covariate shift over layers, relative to the layer's gradient."""
        return self.each(lambda m: mean_shift(m))

    @property
    def last(self) -> list[float]:
        """The measure on the test set at the end, of each seed."""
        return [value for c in self.courses if (value := c.test[-1]) is not None]

    @property
    def headline(self) -> str:
        """The answer in words."""
        text = (
            f"Effective smoothness {mean_and_spread(summarize(self.beta))} (lower is smoother), "
            f"range of the loss within 0.4 gradients "
            f"{mean_and_spread(summarize(self.loss_range))}"
            ", of the gradient's change "
            f"{mean_and_spread(summarize(self.gradient_range))}: medians "
            f"over training at learning rate {self.lr:g}."
        )
        if any(m.shifts for m in self.courses[0].moments):
            text += (
                f" Internal covariate shift is {mean_and_spread(summarize(self.shift))} of a "
                "layer's gradient."
            )
        return text

    @property
    def meaning(self) -> str:
        """What it means."""
        return (
            "At some steps of training the loss of one batch is followed down its gradient g, to "
            "0.4 g: where loss and gradient hardly change, the gradient foretells what a step "
            "does. Effective smoothness is the largest change of the gradient by the distance "
            "gone. Internal covariate shift of a layer is how far its gradient moves, on the same "
            "batch, when the layers below it have made their step and it has not."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each moment."""
        return [
            {
                "seed": course.seed,
                "step": m.step,
                "loss": m.loss,
                "gradient": m.gradient,
                "loss_low": m.losses[0],
                "loss_high": m.losses[1],
                "change_low": m.changes[0],
                "change_high": m.changes[1],
                "beta": m.beta,
                "shift": mean_shift(m),
            }
            for course in self.courses
            for m in course.moments
        ]

    def draw(self, path: Path) -> None:
        """Curves, ranges along the gradient, shift, and histograms of the first seed."""
        course = self.courses[0]
        panels = 5 + len(course.histograms)
        with drawing(path, figsize=(5 * -(-panels // 2), 7.6), nrows=2, ncols=-(-panels // 2)) as (
            figure,
            grid,
        ):
            axes = list(grid.flat)
            _curves(axes[0], course, self.measure)
            draw_ranges(axes[1:4], {"": course})
            _shift(axes[4], course)
            for axis, found in zip(axes[5:], course.histograms, strict=False):
                draw_histograms(axis, found)
            for axis in axes[panels:]:
                axis.remove()
            figure.suptitle(f"{self.network}, {self.data}, learning rate {self.lr:g}, "
                            f"seed {course.seed}", fontsize="medium")  # fmt: skip


def mean_shift(m: Moment) -> float | None:
    """Mean over layers of |G - G'| / |G|; None without any."""
    found = [s.l2 / s.gradient for s in m.shifts if s.gradient > 0]
    return fmean(found) if found else None


def draw_ranges(axes: Any, courses: Mapping[str, Course]) -> None:
    """Range of the loss and of the gradient's change as bands, and effective smoothness.

    Args:
        axes: Three of matplotlib.
        courses: Name -> course, each in its colour.
    """
    for (name, course), colour in zip(courses.items(), COLOURS, strict=False):
        steps = [m.step for m in course.moments]
        for axis, ends in ((axes[0], [m.losses for m in course.moments]),
                           (axes[1], [m.changes for m in course.moments])):  # fmt: skip
            axis.fill_between(steps, *zip(*ends, strict=True), alpha=0.4, color=colour, label=name)
        axes[2].plot(steps, [m.beta for m in course.moments], color=colour, label=name)
    labels = ("loss within 0.4 gradients", "change of the gradient", "effective smoothness")
    for axis, label in zip(axes, labels, strict=True):
        axis.set(xlabel="step", ylabel=label, yscale="log")
        axis.grid(alpha=0.3)


def draw_histograms(axis: Any, found: Histograms) -> None:
    """The distribution of a layer's outputs, a column a step."""
    import numpy as np

    grid = np.array(found.shares).T
    gaps = [b - a for a, b in zip(found.steps, found.steps[1:], strict=False)]
    edges = [*found.steps, found.steps[-1] + (gaps[-1] if gaps else 1)]
    axis.pcolormesh(edges, found.edges, grid, cmap="magma_r")
    axis.set(xlabel="step", ylabel="output", title=found.layer or "output")


def _curves(axis: Any, course: Course, measure: str) -> None:
    axis.plot(range(1, len(course.train) + 1), course.train, color=COLOURS[0], label="training")
    axis.plot(range(len(course.test)), course.test, color=COLOURS[1], label="test")
    axis.set(xlabel="epoch", ylabel=measure)
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3)


def _shift(axis: Any, course: Course) -> None:
    layers = [s.layer for s in course.moments[0].shifts]
    for i in {0, len(layers) // 2, len(layers) - 1} & set(range(len(layers))):
        values = [m.shifts[i].l2 / max(m.shifts[i].gradient, 1e-30) for m in course.moments]
        axis.plot([m.step for m in course.moments], values, label=layers[i])
    axis.set(xlabel="step", ylabel="shift of the gradient / gradient", yscale="log")
    if layers:
        axis.legend(fontsize="small")
    axis.grid(alpha=0.3)
