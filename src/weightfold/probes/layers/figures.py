"""Figures of layer resets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from weightfold.probes.layers.measurements import DRAWN, Correlation
from weightfold.probes.layers.units import Unit
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.scale import Scale
from weightfold.report.statistics import Paired, Summary, summarize

_SPREAD_UP_TO = 12
"""Units up to which cells show the spread over seeds beside the mean."""


class Resets(Protocol):
    """What the figures show of a `LayerReset`, which see."""

    @property
    def network(self) -> str:
        """Its class and size."""
        ...

    @property
    def data(self) -> str:
        """Name of the data."""
        ...

    @property
    def bn(self) -> str:
        """What became of batch norm's statistics."""
        ...

    @property
    def batch_norms(self) -> int:
        """How many there are."""
        ...

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs that units were set back to."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the networks."""
        ...

    @property
    def units(self) -> tuple[Unit, ...]:
        """What was set back together."""
        ...

    @property
    def chance(self) -> float:
        """Test error of the trivial predictor."""
        ...

    @property
    def error(self) -> str:
        """What errors are, in words."""
        ...

    @property
    def scale(self) -> Scale:
        """How errors are printed."""
        ...

    @property
    def bar(self) -> float:
        """The rise from which a layer is critical."""
        ...

    @property
    def trained(self) -> list[float]:
        """Test error of each trained network."""
        ...

    @property
    def robustness(self) -> Paired:
        """The mean rise."""
        ...

    @property
    def policy(self) -> str:
        """What became of batch norm's statistics."""
        ...

    def errors(self, unit: str, source: int | str) -> list[float] | None:
        """Test errors with a unit set back."""
        ...

    def increase(self, unit: str, source: int | str = 0) -> Paired:
        """Their rise."""
        ...

    def distance(self, unit: str, norm: Literal["l2", "linf"]) -> Summary:
        """How far training took a unit."""
        ...

    def correlation(self, norm: Literal["l2", "linf"]) -> Correlation | None:
        """Of distance and rise."""
        ...


def draw_reset(finding: Resets, path: Path) -> None:
    """Test error by unit and epoch, darker is higher; beside it distance against its rise.

    Args:
        finding: What to show.
        path: PNG file; its folder is made if missing.

    Raises:
        ImportError: matplotlib or scipy is not installed.
    """
    columns = [*finding.epochs[:-1], DRAWN, finding.epochs[-1]]
    height = 2.2 + max(0.36 * len(finding.units), 2.0)
    width = 3.4 + 0.78 * len(columns) + 5.6
    ratios = [3.4 + 0.78 * len(columns), 2.8, 2.8]
    with drawing(path, figsize=(width, height), ncols=3, width_ratios=ratios) as (figure, axes):
        _heatmap(figure, axes[0], finding, columns)
        _scatter(axes[1], finding, "l2")
        _scatter(axes[2], finding, "linf")
        seeds = len(finding.seeds)
        figure.suptitle(
            f"{finding.network}, {finding.data}: one layer set back, the others trained\n"
            f"{finding.policy}; mean{' ± std' if _spread(finding) else ''} over {seeds} "
            f"{'network' if seeds == 1 else 'networks'}"
        )


def _spread(finding: Resets) -> bool:
    return len(finding.seeds) > 1 and len(finding.units) <= _SPREAD_UP_TO


def _heatmap(figure: Any, axis: Any, finding: Resets, columns: list[int | str]) -> None:
    summaries = [[_summary(finding, unit.name, c) for c in columns] for unit in finding.units]
    factor, digits = finding.scale.factor, finding.scale.digits
    means = [[float("nan") if s is None else factor * s.mean for s in row] for row in summaries]
    lightest = factor * summarize(finding.trained).mean
    darkest = factor * max(finding.chance, summarize(finding.trained).mean + finding.bar / 5)
    image = axis.imshow(means, cmap="Blues", vmin=lightest, vmax=darkest, aspect="auto")
    for y, row in enumerate(summaries):
        for x, cell in enumerate(row):
            text = "none" if cell is None else f"{factor * cell.mean:.{digits}f}"
            if cell is not None and cell.std is not None and _spread(finding):
                text += f"\n±{factor * cell.std:.{digits}f}"
            middle = 0.4 * lightest + 0.6 * darkest
            colour = "white" if cell is not None and factor * cell.mean > middle else "black"
            axis.text(x, y, text, ha="center", va="center", color=colour, fontsize=7)
    names = [str(c) if isinstance(c, int) else c.replace(" ", "\n") for c in columns]
    names[-1] += "\ntrained"
    axis.set_xticks(range(len(columns)), names)
    axis.set_yticks(range(len(finding.units)), [unit.name for unit in finding.units])
    for edge in (len(columns) - 2.5, len(columns) - 1.5):
        axis.axvline(edge, color="black", linewidth=1)
    axis.set(xlabel="epoch the layer is set back to", ylabel="layer")
    bar = figure.colorbar(image, ax=axis, pad=0.02)
    label = finding.scale.label(f"test {finding.error}")
    bar.set_label(f"{label}, from trained to chance ({finding.scale.text(finding.chance)})")


def _summary(finding: Resets, unit: str, source: int | str) -> Summary | None:
    errors = finding.errors(unit, source)
    return None if errors is None else summarize(errors)


def _scatter(axis: Any, finding: Resets, norm: Literal["l2", "linf"]) -> None:
    label = {
        "l2": r"$\|\theta_T-\theta_0\|_2\,/\sqrt{p}$",
        "linf": r"$\|\theta_T-\theta_0\|_\infty$",
    }[norm]
    xs = [finding.distance(unit.name, norm).mean for unit in finding.units]
    ys = [finding.scale.factor * finding.increase(unit.name).mean for unit in finding.units]
    axis.plot(xs, ys, "o", color=COLOURS[0], markersize=4)
    if len(finding.units) <= _SPREAD_UP_TO:
        middle = (min(xs) + max(xs)) / 2
        for unit, x, y in zip(finding.units, xs, ys, strict=True):
            side = (
                {"xytext": (4, 3), "ha": "left"}
                if x <= middle
                else {"xytext": (-4, 3), "ha": "right"}
            )
            axis.annotate(unit.name, (x, y), textcoords="offset points", fontsize=6, **side)
    found = finding.correlation(norm)
    title = "no rank correlation defined" if found is None else f"Spearman {found.rho:+.2f}"
    axis.set_title(f"{title}, {len(finding.units)} layers", fontsize=9)
    points = f" ({finding.scale.points})" if finding.scale.points else ""
    axis.set(xlabel=label, ylabel=f"rise of test {finding.error}, set back to epoch 0{points}")
    axis.margins(0.15)
    axis.grid(alpha=0.3)


def robustness_by_depth(findings: Mapping[str, Sequence[Resets]], path: Path) -> None:
    """The robustness score against the number of layers; lower is more robust.

    Args:
        findings: Family of networks -> one finding for each depth.
        path: PNG file; its folder is made if missing.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no finding, or they treat running statistics differently, or their
            errors are not of one kind.
    """
    from matplotlib.ticker import MaxNLocator

    policies = sorted({f.bn for row in findings.values() for f in row if f.batch_norms})
    if len(policies) > 1:
        raise ValueError(
            f"findings have the batch norm policies {', '.join(policies)}; a figure compares "
            "scores of one policy"
        )
    if not any(findings.values()):
        raise ValueError("findings is empty; give at least one")
    kinds = {f.error: f.scale for row in findings.values() for f in row}
    if len(kinds) > 1:
        raise ValueError(f"findings have errors of the kinds {', '.join(kinds)}; give one kind")
    ((error, scale),) = kinds.items()
    factor, points = scale.factor, f" ({scale.points})" if scale.points else ""
    with drawing(path, figsize=(6.4, 4.4)) as (figure, axis):
        for index, (family, row) in enumerate(findings.items()):
            row = sorted(row, key=lambda finding: len(finding.units))
            scores = [finding.robustness for finding in row]
            ends = [(s.mean if e is None else e) for s in scores for e in (s.low, s.high)]
            means = [factor * score.mean for score in scores]
            lows = [factor * (s.mean - e) for s, e in zip(scores, ends[::2], strict=True)]
            highs = [factor * (e - s.mean) for s, e in zip(scores, ends[1::2], strict=True)]
            axis.errorbar(
                [len(finding.units) for finding in row],
                means,
                yerr=[lows, highs],
                fmt="o-",
                color=COLOURS[index % len(COLOURS)],
                capsize=3,
                label=f"{family} (n = {min(s.n for s in scores)})",
            )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set(xlabel="layers", ylabel=f"rise of test {error}{points}, mean over layers")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        policy = f"batch norm {policies[0]}" if policies else "no batch norm"
        figure.suptitle(
            "One layer set back to its initial weights: lower is more robust\n"
            f"{policy}; mean and 95% interval over networks"
        )
