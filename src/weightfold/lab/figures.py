"""Figures of experiments, as PNG: dots, values along an axis, curves by epoch, scatter."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weightfold.lab.experiment import Estimate, Quantity
from weightfold.lab.measures import column_by_domain, domains_of
from weightfold.lab.printed import Printed
from weightfold.lab.results import Results
from weightfold.report.figures import COLOURS, drawing, learning_curves
from weightfold.report.statistics import summarize
from weightfold.train.history import History, Row

_PUBLISHED = "#767676"

Panels = Mapping[str, Callable[[Row], float]]
"""Label of a panel of learning curves -> its value of a row."""


def panels_of(history: History) -> Panels:
    """What learning curves show of a history: its first measure, while testing and training."""
    measure = history.measure
    name, share = measure.name, measure.share
    scale, unit = (100.0, " (%)") if share else (1.0, "")
    found: dict[str, Callable[[Row], float]] = {
        f"test {name}{unit}": lambda row: scale * row[f"test_{name}"]
    }
    if history.rows[0].get(f"train_{name}") is not None:
        if share:
            found["training error, augmented images (%)"] = lambda row: (
                100 * (1 - row[f"train_{name}"])
            )
        else:
            found[f"train {name}"] = lambda row: row[f"train_{name}"]
    return found


def colour(index: int) -> str:
    """The colour of a series, in turn."""
    return COLOURS[index % len(COLOURS)]


def dots(results: Results, path: Path) -> bool:
    """The first measure, a line each: ours with interval or spread, and the published number.

    Bounds are arrows that point to where the value lies.

    Returns:
        Whether there was anything to draw.
    """
    measure = results.experiment.measures[0]
    shown: list[tuple[str, Estimate | None, Printed | None]] = []
    for line in results.experiment.lines:
        ours = results.estimate(line.label, measure.key)
        printed = results.published(line.label, measure.key)
        if ours or (printed and (line.label in results.outcomes or line.not_run)):
            shown.append((line.label, ours, printed))
    if not shown:
        return False
    with drawing(path, figsize=(8, 1.6 + 0.42 * len(shown))) as (figure, axis):
        for y, (_, ours, printed) in enumerate(shown):
            if ours:
                _dot(axis, ours.value, ours.bound, _ends(ours, measure), y - 0.13, COLOURS[0], "o")
            if printed:
                spread = printed.spread or 0.0
                ends = (printed.value - spread, printed.value + spread)
                _dot(axis, printed.value, printed.bound, ends, y + 0.13, _PUBLISHED, "D")
        axis.plot([], [], "o", color=COLOURS[0], label="ours, interval or ± std over seeds")
        if any(printed for _, _, printed in shown):
            axis.plot([], [], "D", color=_PUBLISHED, label="published")
        if measure.ratio:
            axis.set_xscale("log")
        axis.set_yticks(range(len(shown)), [label for label, _, _ in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set(xlabel=measure.title)
        axis.grid(axis="x", alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
        figure.suptitle(_title(results))
    return True


def _dot(
    axis: Any, x: float, bound: str, ends: tuple[float, float], y: float, colour: str, marker: str
) -> None:
    axis.plot(x, y, {"": marker, ">": ">", "<": "<"}[bound], color=colour, markersize=5)
    axis.plot(ends, [y, y], color=colour)


def _ends(found: Estimate, measure: Quantity) -> tuple[float, float]:
    """Of the interval, else of the spread, within what the measure can be."""
    spread = found.std or 0.0
    low, high = found.value - spread, found.value + spread
    if found.low is not None and found.high is not None:
        low, high = found.low, found.high
    least, most = measure.within or (low, high)
    return max(low, least), min(high, most)


def along_axis(results: Results, path: Path) -> bool:
    """Measures against the experiment's numeric axis, a panel each and a colour a series.

    Returns:
        Whether there was anything to draw.
    """
    experiment = results.experiment
    assert experiment.axis is not None
    keys = experiment.axis.measures or (experiment.measures[0].key,)
    keys = tuple(k for k in keys if any(results.estimate(x, k) for x in results.outcomes))
    placed = [line for line in experiment.lines if line.at is not None]
    if not keys:
        return False
    series = sorted({name for line in placed for name in line.series})
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    size = (max(6.5, 3.8 * columns), 3.6 * rows + 0.8)
    with drawing(path, figsize=size, nrows=rows, ncols=columns, squeeze=False) as (figure, axes):
        for panel in list(axes.flat)[len(keys) :]:
            panel.set_axis_off()
        for panel, key in zip(axes.flat, keys, strict=False):
            for index, name in enumerate(series):
                labels = [x.label for x in placed if name in x.series]
                _series(panel, results, labels, key, colour(index), name or "ours")
            for line in experiment.lines:
                if line.at is None and (found := results.estimate(line.label, key)):
                    panel.axhline(found.value, color=_PUBLISHED, linewidth=1, label=line.label)
            measure = experiment.measure(key)
            panel.set(xlabel=experiment.axis.title, ylabel=measure.title)
            panel.set_xscale("log" if experiment.axis.log else "linear")
            panel.set_yscale("log" if measure.ratio else "linear")
            panel.grid(alpha=0.3, which="both")
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize="small")
        figure.suptitle(_title(results))
    return True


def _series(
    axis: Any, results: Results, labels: Sequence[str], key: str, colour: str, name: str
) -> None:
    """One curve with its intervals, and the published numbers of its lines."""
    points = []
    for label in labels:
        line = results.line(label)
        printed = results.published(label, key)
        if printed:
            axis.plot(line.at, printed.value, "D", color=colour, markersize=4, fillstyle="none")
        if found := results.estimate(label, key):
            points.append((line.at or 0.0, found))
    points.sort(key=lambda point: point[0])
    if points:
        measure = results.measure(key)
        low, high = zip(*(_ends(found, measure) for _, found in points), strict=True)
        values = [found.value for _, found in points]
        below = [max(0.0, v - e) for v, e in zip(values, low, strict=True)]
        over = [max(0.0, e - v) for v, e in zip(values, high, strict=True)]
        axis.errorbar([x for x, _ in points], values, yerr=(below, over), color=colour,
                      marker="o", markersize=4, capsize=2, linewidth=1.3, label=name)  # fmt: skip


def curves(results: Results, path: Path) -> bool:
    """Learning curves of the lines whose records are histories of one data set.

    Returns:
        Whether there was anything to draw.
    """
    histories = {
        label: [r for r in results.records(label) if isinstance(r, History) and not domains_of(r)]
        for label in results.outcomes
    }
    if max((len(h.rows) for line in histories.values() for h in line), default=0) < 2:
        return False
    first = next(h for line in histories.values() for h in line)
    panels = {
        title: {
            label: [[of(row) for row in h.rows] for h in line] for label, line in histories.items()
        }
        for title, of in panels_of(first).items()
    }
    learning_curves(panels, path, title=_title(results))
    return True


def scatter(
    results: Results, path: Path, x: str, y: str, series: Callable[[str], str] = lambda label: ""
) -> bool:
    """A measure against another, a point a line and a colour a series; the front is joined.

    Args:
        results: Of which.
        path: PNG file.
        x: Key of a measure of which less is better.
        y: Key of one of which more is better.
        series: Label -> series.

    Returns:
        Whether there was anything to draw.
    """
    found: dict[str, list[tuple[float, Estimate, str]]] = {}
    for label in results.outcomes:
        across, up = results.estimate(label, x), results.estimate(label, y)
        if across and up:
            found.setdefault(series(label), []).append((across.value, up, label))
    if not found:
        return False
    with drawing(path, figsize=(9, 5)) as (_, axis):
        for index, (name, points) in enumerate(found.items()):
            points.sort(key=lambda point: point[0])
            xs, ys = [p[0] for p in points], [p[1].value for p in points]
            spread = [p[1].std or 0.0 for p in points]
            axis.errorbar(xs, ys, yerr=spread, fmt="o", color=colour(index), capsize=3,
                          markersize=5, label=name or None)  # fmt: skip
            best = [i for i, value in enumerate(ys) if value >= max(ys[: i + 1])]
            axis.step([xs[i] for i in best], [ys[i] for i in best], where="post",
                      color=colour(index), linewidth=0.9, alpha=0.6)  # fmt: skip
            for across, up, label in points:
                text = label.removeprefix(f"{name}, ")
                place = (across, up.value)
                axis.annotate(text, place, (4, 3), textcoords="offset points", fontsize=6.5)
        titles = [results.measure(key).title for key in (x, y)]
        axis.set(xlabel=titles[0], ylabel=titles[1], xlim=(0, None))
        axis.grid(alpha=0.3)
        if any(found):
            axis.legend(fontsize="small")
    return True


def domain_curves(results: Results, path: Path, panels: Mapping[str, Sequence[str]]) -> bool:
    """Test accuracy by epoch: a panel for each group of lines, in it a curve a line and domain.

    A colour is a domain's, a dash a line's; curves are means over seeds.

    Args:
        results: Of lines whose records are histories of several domains.
        path: PNG file.
        panels: Title -> labels.

    Returns:
        Whether there was anything to draw.
    """
    finished = {
        title: [label for label in labels if results.records(label)]
        for title, labels in panels.items()
    }
    finished = {title: labels for title, labels in finished.items() if labels}
    if not finished:
        return False
    names = list(
        dict.fromkeys(
            domain
            for labels in finished.values()
            for label in labels
            for domain in domains_of(results.records(label)[0])
        )
    )
    columns = min(3, len(finished))
    rows = -(-len(finished) // columns)
    size = (4.6 * columns + 0.6, 3.6 * rows)
    with drawing(path, figsize=size, nrows=rows, ncols=columns, squeeze=False) as (figure, axes):
        for panel in list(axes.flat)[len(finished) :]:
            panel.set_axis_off()
        for panel, (title, labels) in zip(axes.flat, finished.items(), strict=False):
            for dash, label in zip(("-", "--", ":", "-.", (0, (1, 3))) * 9, labels, strict=False):
                for name in domains_of(results.records(label)[0]):
                    values = [column_by_domain(r, name) for r in results.records(label)]
                    means = [summarize(epoch).mean for epoch in zip(*values, strict=False)]
                    panel.plot(range(1, len(means) + 1), means, color=colour(names.index(name)),
                               linestyle=dash, linewidth=1.4)  # fmt: skip
                panel.plot([], [], color="black", linestyle=dash, label=label)
            panel.set(title=title, xlabel="epoch", ylabel="test accuracy (%)")
            panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            panel.grid(alpha=0.3)
            panel.legend(fontsize="x-small")
        handles = [
            axes.flat[0].plot([], [], color=colour(i), label=name)[0]
            for i, name in enumerate(names)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize="small")
    return True


def _title(results: Results) -> str:
    name = results.experiment.name
    return f"{name}, preset {results.preset}" if name else results.experiment.title
