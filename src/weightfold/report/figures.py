"""Figures, as PNG and beside it as SVG."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weightfold.report.statistics import summarize

# Okabe and Ito's colours, which the colour-blind tell apart, without yellow; then other dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", "--", ":", "-.")


@contextmanager
def drawing(path: Path, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, written at the end to `path`, a PNG file, and as SVG beside it."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'weightfold[train]'") from error
    from weightfold.files import replacing

    figure = Figure(layout="constrained", dpi=150, figsize=options.pop("figsize"))
    FigureCanvasAgg(figure)
    yield figure, figure.subplots(**options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    # Equal figures give equal files: no date, and names of parts that do not change.
    with rc_context({"svg.hashsalt": "weightfold"}), replacing(path.with_suffix(".svg")) as other:
        figure.savefig(other, format="svg", metadata={"Date": None, "Creator": None})


def erase(path: Path) -> None:
    """Remove what `drawing` wrote to `path` earlier, if it is there."""
    for file in (path, path.with_suffix(".svg")):
        file.unlink(missing_ok=True)


def learning_curves(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    path: Path,
    *,
    title: str,
    xlabel: str = "epoch",
) -> None:
    """Values by epoch, a panel each: the mean over seeds, in a band of one standard deviation.

    Runs may be of different lengths; an epoch's mean is over those that have it.

    Args:
        panels: Label of the vertical axis -> name of a line -> its runs' values, from epoch 1.
        path: PNG file; its folder is made if missing.
        title: Above the figure.
        xlabel: Of the horizontal axis.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no run.
    """
    from matplotlib.ticker import MaxNLocator

    if not any(any(lines.values()) for lines in panels.values()):
        raise ValueError("panels is empty; learning curves need at least one run")
    options = {"figsize": (5 * len(panels), 4.4), "ncols": len(panels), "squeeze": False}
    with drawing(path, **options) as (figure, axes):
        for (label, lines), axis in zip(panels.items(), axes[0], strict=True):
            for index, (name, runs) in enumerate(lines.items()):
                if runs:
                    draw_curve(axis, index, name, runs)
            axis.set(xlabel=xlabel, ylabel=label)
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes[0][0].legend(fontsize="small")
        figure.suptitle(title)


def draw_curve(axis: Any, index: int, name: str, runs: Sequence[Sequence[float]]) -> None:
    """Draw the mean over runs and its band into an axis.

    Args:
        axis: Of matplotlib.
        index: Of the line, which has its own colour and dashes.
        name: In the legend, with the number of runs.
        runs: Values from epoch 1 of each; at least one run.
    """
    epochs = range(max(map(len, runs)))
    points = [summarize([run[epoch] for run in runs if epoch < len(run)]) for epoch in epochs]
    colour = COLOURS[index % len(COLOURS)]
    x = [epoch + 1 for epoch in epochs]
    style = {
        "color": colour,
        "linestyle": _DASHES[index // len(COLOURS) % len(_DASHES)],
        "marker": "o" if len(x) == 1 else None,
    }
    axis.plot(x, [p.mean for p in points], label=f"{name} (n = {len(runs)})", **style)
    low, high = ([p.mean + sign * (p.std or 0) for p in points] for sign in (-1, 1))
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
