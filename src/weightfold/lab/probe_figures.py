"""The figure above all of an experiment of probes: ours beside the published numbers."""

from pathlib import Path
from typing import Any

from weightfold.lab.probe_declare import Estimate, Printed
from weightfold.lab.probe_results import ProbeResults
from weightfold.report.figures import COLOURS, drawing

_PUBLISHED = "#767676"


def draw_first_measure(results: ProbeResults, path: Path) -> None:
    """The experiment's first measure, a line each, on a log axis if it is compared by ratios.

    Bounds are arrows that point to where the value lies.

    Args:
        results: At least one line of which has an estimate or a published number.
        path: PNG file.
    """
    measure = results.experiment.measures[0]
    shown: list[tuple[str, Estimate | None, Printed | None]] = []
    for line in results.experiment.lines:
        ours = results.estimate(line.label, measure.key)
        printed = results.published(line.label, measure.key)
        if ours or printed:
            shown.append((line.label, ours, printed))
    with drawing(path, figsize=(8, 1.6 + 0.42 * len(shown))) as (figure, axis):
        for y, (_, ours, printed) in enumerate(shown):
            if ours:
                _point(axis, ours, y - 0.13, COLOURS[0], "o")
                if ours.low is not None and ours.high is not None:
                    axis.plot([ours.low, ours.high], [y - 0.13] * 2, color=COLOURS[0])
            if printed:
                _point(axis, printed, y + 0.13, _PUBLISHED, "D")
        axis.plot([], [], "o", color=COLOURS[0], label="ours, 95% interval over seeds")
        axis.plot([], [], "D", color=_PUBLISHED, label="published")
        if measure.relative:
            axis.set_xscale("log")
        axis.set_yticks(range(len(shown)), [label for label, _, _ in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set(xlabel=measure.title)
        axis.grid(axis="x", alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
        figure.suptitle(f"{results.experiment.name}, preset {results.preset}")


def _point(axis: Any, number: Estimate | Printed, y: float, colour: str, marker: str) -> None:
    marker = {"": marker, ">": ">", "<": "<"}[number.bound]
    axis.plot(number.value, y, marker, color=colour, markersize=5)
