"""Figures, as PNG."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.report.statistics import Summary, summarize

if TYPE_CHECKING:
    from weightfold.train import History, Row

# Okabe and Ito's colours, which the colour-blind tell apart, without yellow; then other dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", "--", ":", "-.")
_PUBLISHED = "#767676"


@contextmanager
def drawing(path: Path, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, written to `path` at the end."""
    try:
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


def learning_curves(
    histories: "Mapping[str, Sequence[History]]", path: Path, *, title: str
) -> None:
    """Test accuracy and training error by epoch: the mean over seeds, in a band of one std.

    Runs may be of different lengths; an epoch's mean is over those that have it.

    Args:
        histories: Variant -> its runs, one per seed.
        path: PNG file; its folder is made if missing.
        title: Above the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no run.
    """
    from matplotlib.ticker import MaxNLocator

    if not any(histories.values()):
        raise ValueError("histories is empty; learning curves need at least one run")
    curves: dict[str, Callable[[Row], float]] = {
        "test accuracy (%)": lambda row: 100 * row["test_accuracy"],
        "training error, augmented images (%)": lambda row: 100 * (1 - row["train_accuracy"]),
    }
    with drawing(path, figsize=(10, 4.4), ncols=2) as (figure, axes):
        for (label, of), axis in zip(curves.items(), axes, strict=True):
            for index, (name, runs) in enumerate(histories.items()):
                if runs:
                    _curve(axis, index, name, [[of(row) for row in run.rows] for run in runs])
            axis.set(xlabel="epoch", ylabel=label)
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes[0].legend(fontsize="small")
        figure.suptitle(title)


def _curve(axis: Any, index: int, name: str, runs: list[list[float]]) -> None:
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


@dataclass(frozen=True)
class Dot:
    """A line of a dot plot.

    Attributes:
        label: What was measured.
        ours: Our figure; None if it has not been measured.
        published: Mean and std (None if not printed); None if nothing was published.
    """

    label: str
    ours: Summary | None
    published: tuple[float, float | None] | None


def dot_plot(dots: Sequence[Dot], path: Path, *, title: str, unit: str) -> None:
    """Our mean and spread beside the published ones, a line each.

    Args:
        dots: From top to bottom.
        path: PNG file; its folder is made if missing.
        title: Above the figure.
        unit: Label of the axis.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with drawing(path, figsize=(8, 1.6 + 0.42 * len(dots))) as (figure, axis):
        for y, dot in enumerate(dots):
            if dot.ours:
                _dot(axis, dot.ours.mean, dot.ours.std, y - 0.13, COLOURS[0], "o")
            if dot.published:
                _dot(axis, *dot.published, y + 0.13, _PUBLISHED, "D")
        _dot(axis, float("nan"), None, 0, COLOURS[0], "o", "ours, mean ± std over seeds")
        _dot(axis, float("nan"), None, 0, _PUBLISHED, "D", "published")
        axis.set_yticks(range(len(dots)), [dot.label for dot in dots])
        axis.set_ylim(len(dots) - 0.5, -0.5)
        axis.set(xlabel=unit)
        axis.grid(axis="x", alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
        figure.suptitle(title)


def _dot(
    axis: Any, x: float, std: float | None, y: float, colour: str, marker: str, label: str = ""
) -> None:
    axis.errorbar(
        x, y, xerr=std, fmt=marker, color=colour, capsize=3, markersize=5, label=label or None
    )
