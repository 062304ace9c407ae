"""Figures of the relax protocol, as d'Ascoli et al. 2019, Figures 2 to 7, and paths."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from weightfold.report.figures import COLOURS, drawing


def draw_relaxation(found: Any, path: Path) -> None:
    """Curves, accuracy, sharpness, deviation, parts, paths and filters of a `Relaxation`.

    Args:
        found: What to show.
        path: PNG file; its folder is made if missing.
    """
    with drawing(path, figsize=(16, 15.5), nrows=4, ncols=4) as (figure, axes):
        _curves(axes[0, 0], found, lambda p: p.train_loss, "training loss", log=True)
        _curves(axes[0, 1], found, lambda p: 100 * p.accuracy, "test accuracy (%)")
        _final(axes[0, 2], found)
        _parts(axes[0, 3], found)
        _both(axes[1, 0], found, lambda s: s.gradient, "gradient norm")
        _both(axes[1, 1], found, lambda s: s.eigenvalue, "top Hessian eigenvalue")
        _against_time(axes[1, 2], found)
        _scatter(axes[1, 3], found, lambda r: r.before.loss, "training loss at relaxation")
        _scatter(axes[2, 0], found, lambda r: 100 * r.after.accuracy, "test accuracy (%)")
        _paths(axes[2, 1], found, ("CNN", "eFCN"))
        _paths(axes[2, 2], found, ("eFCN", "FCN"))
        _path_deviation(axes[2, 3], found)
        _filters(axes[3], found)
        figure.suptitle(
            f"{found.network}, {found.data}: set free as {found.weights:,} {found.space} weights, "
            f"{found.optimizer}, rate {found.lr:g} ({found.rate}), {found.epochs} epochs, "
            f"{len(found.seeds)} seeds (means)"
        )


def _shade(found: Any, time: int) -> Any:
    from matplotlib import colormaps

    share = found.times.index(time) / max(1, len(found.times) - 1)
    return colormaps["viridis"](0.9 * share)


def _curves(
    axis: Any, found: Any, of: Callable[[Any], float | None], title: str, *, log: bool = False
) -> None:
    def line(curves: Sequence[Any], **style: Any) -> None:
        curves = [curve for curve in curves if curve]
        if not curves:
            return
        length = min(map(len, curves))
        known: list[tuple[int, float]] = []
        for i in range(length):
            values = [value for curve in curves if (value := of(curve[i])) is not None]
            if len(values) == len(curves):
                known.append((curves[0][i].epoch, fmean(values)))
        axis.plot([epoch for epoch, _ in known], [y for _, y in known], **style)

    line([one.curve for one in found.convolutional], color="black", label="CNN")
    line([run.curve for run in found.of(None)], color="red", label="from scratch")
    for time in found.times:
        line([run.curve for run in found.of(time)], color=_shade(found, time), label=f"{time}")
    axis.set(xlabel="epochs (since relaxation)", ylabel=title, xscale="symlog")
    if log:
        axis.set_yscale("log")
    else:
        axis.legend(fontsize=6, title="relaxed at", title_fontsize=6)
    axis.grid(alpha=0.3)


def _levels(axis: Any, found: Any) -> None:
    axis.axhline(100 * fmean(c.accuracy for c in found.convolutional), color="black", label="CNN")
    if scratch := found.values(None, lambda s: s.accuracy):
        axis.axhline(100 * fmean(scratch.values()), color="red", ls="--", label="from scratch")


def _final(axis: Any, found: Any) -> None:
    _levels(axis, found)
    for time in found.times:
        values = [100 * v for v in found.values(time, lambda s: s.accuracy).values()]
        axis.plot([time] * len(values), values, "x", color=COLOURS[1])
    axis.set(xlabel="relax time (epochs)", ylabel="final test accuracy (%)", xscale="symlog")
    axis.legend(fontsize="x-small")
    axis.grid(alpha=0.3)


def _series(
    axis: Any, found: Any, of: Callable[[Any], float | None], style: str, after: bool = True
) -> Callable[..., None]:
    def draw(factor: float = 1.0, **look: Any) -> None:
        known = [(t, found.values(t, of, after=after)) for t in found.times]
        known = [(t, v) for t, v in known if v]
        ys = [factor * fmean(values.values()) for _, values in known]
        axis.plot([t for t, _ in known], ys, style, **look)

    return draw


def _parts(axis: Any, found: Any) -> None:
    _series(axis, found, lambda s: s.accuracy, "o-")(100, color=COLOURS[2], label="all weights")
    _series(axis, found, lambda s: s.only_local, "o-")(100, color=COLOURS[5], label="local alone")
    _series(axis, found, lambda s: s.only_off_local, "o-")(
        100, color=COLOURS[0], label="off-local alone"
    )
    axis.set(xlabel="relax time (epochs)", ylabel="test accuracy (%)", xscale="symlog")
    axis.legend(fontsize="x-small")
    axis.grid(alpha=0.3)


def _both(axis: Any, found: Any, of: Callable[[Any], float | None], title: str) -> None:
    _series(axis, found, of, "o--", after=False)(color=COLOURS[0], label="at relaxation")
    _series(axis, found, of, "o-")(color=COLOURS[1], label="after training")
    axis.set(xlabel="relax time (epochs)", ylabel=title, xscale="symlog")
    axis.legend(fontsize="x-small")
    axis.grid(alpha=0.3)


def _against_time(axis: Any, found: Any) -> None:
    _series(axis, found, lambda s: s.local, "o-")(100, color=COLOURS[0], label="delta: off-local")
    _series(axis, found, lambda s: s.sharing, "s-")(
        100, color=COLOURS[3], label="weight sharing violated"
    )
    axis.set(xlabel="relax time (epochs)", ylabel="share of the norm (%)", xscale="symlog")
    axis.legend(fontsize="x-small")
    axis.grid(alpha=0.3)


def _scatter(axis: Any, found: Any, of: Callable[[Any], float | None], title: str) -> None:
    for run in found.runs:
        if run.after is None or run.before is None or (y := of(run)) is None:
            continue
        scratch = run.relaxed_at is None
        colour = "red" if scratch else _shade(found, run.relaxed_at)
        axis.plot(100 * run.after.local, y, "*" if scratch else "o", color=colour)
    axis.set(xlabel="delta (%), red: from scratch", ylabel=title)
    axis.grid(alpha=0.3)


def _paths(axis: Any, found: Any, ends: tuple[str, str]) -> None:
    for run in found.runs:
        for line in run.paths:
            if tuple(line.ends) == ends:
                shares = np.linspace(0, 1, len(line.accuracy))
                values = [100 * v for v in line.accuracy]
                axis.plot(shares, values, "-", color=_shade(found, run.relaxed_at), alpha=0.8)
    axis.set(xlabel=f"from {ends[0]} (0) to {ends[1]} (1)", ylabel="test accuracy (%)")
    axis.grid(alpha=0.3)


def _path_deviation(axis: Any, found: Any) -> None:
    for run in found.runs:
        for line in run.paths:
            if tuple(line.ends) == ("eFCN", "FCN"):
                xs, ys = [100 * d for d in line.local], [100 * v for v in line.accuracy]
                axis.plot(xs, ys, "-", color=_shade(found, run.relaxed_at), alpha=0.8)
    for _, critical in found.critical_deviations():
        if critical is not None:
            axis.axvline(100 * critical, color="grey", alpha=0.3)
    axis.set(xlabel="delta (%) on the way to FCN; grey: critical", ylabel="test accuracy (%)")
    axis.grid(alpha=0.3)


def _filters(axes: Any, found: Any) -> None:
    """First, middle and last relax time and the network from scratch, three epochs each."""
    chosen = dict.fromkeys(
        [*(found.times[i] for i in (0, len(found.times) // 2, -1) if found.times), None]
    )
    for axis in axes:
        axis.set_axis_off()
    for axis, time in zip(axes, chosen, strict=False):
        runs = [run for run in found.of(time) if run.filters]
        if not runs:
            continue
        shown = runs[0].filters
        images = [np.log(np.maximum(np.array(one.values), 1e-8)) for one in shown]
        gap = np.full((images[0].shape[0], 1), np.nan)
        parts = [part for image in images for part in (image, gap)][:-1]
        drawn = axis.imshow(np.concatenate(parts, axis=1), cmap="viridis")
        axis.figure.colorbar(drawn, ax=axis, shrink=0.5)
        name = "from scratch" if time is None else f"relaxed at {time}"
        epochs = ", ".join(str(one.epoch) for one in shown)
        axis.set_title(f"log |w| of a filter, {name}\nafter {epochs} epochs", fontsize=8)
