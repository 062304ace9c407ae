"""The figure of `memorization`, after Zhang et al. 2017, Figure 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from weightfold.data.disturb import CONDITIONS, IN_PART
from weightfold.probes.memory.fits import Fit, Fits, Line
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.statistics import summarize

_DASHES = ("-", "--", ":", "-.")


def draw_fits(fits: Fits, path: Path, *, title: str, chance: float) -> None:
    """Three panels, and a fourth where there are variants.

    Training error by epoch of each condition; epochs to zero training error, and test accuracy,
    each by the share of noise; training error by epoch of the variants.

    Args:
        fits: The networks.
        path: PNG file; its folder is made if missing.
        title: Above the figure.
        chance: Accuracy of guessing, drawn as a line.
    """
    whole = [line for line in fits.lines if line.fraction == 1]
    plain = [line for line in whole if not line.variant]
    varied = [line for line in whole if line.variant]
    shape = {"nrows": 2, "ncols": 2} if varied else {"ncols": 3}
    size = (11, 8.6) if varied else (14, 4.4)
    with drawing(path, figsize=size, **shape) as (figure, grid):
        axes = list(grid.flat)
        _curves(axes[0], fits, plain, "training error")
        _by_noise(axes[1], fits, _epochs, bounds=True)
        axes[1].set(ylabel="epochs", title="epochs to zero training error (triangle: more)")
        _by_noise(axes[2], fits, _accuracy)
        axes[2].axhline(100 * chance, color="#767676", linestyle="--", linewidth=1, label="chance")
        axes[2].set(ylabel="test accuracy (%)", title="test accuracy at the end")
        if varied:
            conditions = {line.condition for line in varied}
            compared = [line for line in plain if line.condition in conditions]
            _curves(axes[3], fits, compared + varied, "training error with regularisation")
        for axis in axes:
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize="small")
        figure.suptitle(title)


def _colour(condition: str) -> str:
    return COLOURS[CONDITIONS.index(condition)]


def _curves(axis: Any, fits: Fits, lines: list[Line], title: str) -> None:
    """Mean and standard deviation over seeds; a network that was ended stays where it was."""
    variants = list(dict.fromkeys(line.variant for line in lines))
    for line in lines:
        runs = list(fits.of(line).values())
        longest = max((fit.curve for fit in runs), key=len)
        errors = [
            [100 * (1 - accuracy) for _, accuracy, _ in fit.curve]
            + [100 * (1 - fit.train_accuracy)] * (len(longest) - len(fit.curve))
            for fit in runs
        ]
        points = [summarize(column) for column in zip(*errors, strict=True)]
        x = [epoch for epoch, _, _ in longest]
        colour, style = _colour(line.condition), _DASHES[variants.index(line.variant) % 4]
        axis.plot(x, [p.mean for p in points], style, color=colour, label=line.title)
        low, high = ([p.mean + sign * (p.std or 0) for p in points] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.set(xlabel="epoch", ylabel="training error (%), eval mode", title=title)


def _epochs(fit: Fit) -> float:
    return fit.at_least


def _accuracy(fit: Fit) -> float:
    return 100 * fit.test_accuracy


def _by_noise(
    axis: Any, fits: Fits, value: Callable[[Fit], float], *, bounds: bool = False
) -> None:
    """A line for each condition that can be partial, beginning with true data."""
    for condition in IN_PART:
        lines = fits.noises(condition)
        if not any(line.condition == condition for line in lines):
            continue
        points = [summarize([value(fit) for fit in fits.of(line).values()]) for line in lines]
        axis.errorbar(
            [100 * line.noise for line in lines],
            [p.mean for p in points],
            yerr=[p.std or 0 for p in points],
            color=_colour(condition),
            marker="o",
            capsize=3,
            label=condition.replace("-", " "),
        )
        for line, point in zip(lines, points, strict=True):
            if bounds and not fits.reached(line):
                axis.plot(100 * line.noise, point.mean, "^", color=_colour(condition), ms=11)
    axis.set(xlabel="noise in the training set (%)")
