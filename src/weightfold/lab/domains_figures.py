"""Figures of experiments on several domains, as PNG."""

from pathlib import Path
from typing import Any

from weightfold.lab.domains_results import MEAN, Results
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.statistics import summarize

_STYLES = {"bottom": "-", "top": "--", "random": ":", "independent": "-."}
_OTHER = (0, (1, 3))


def _strategy(results: Results, label: str) -> str:
    return results.line(label).plan.partition(",")[0]


def accuracy_curves(results: Results, path: Path) -> bool:
    """Accuracy by epoch, a panel for each backbone and a colour for each domain (Figures 2, 4).

    Bottom is drawn solid and top dashed; means over seeds. Epochs of classifiers alone are left of
    the dotted line.

    Returns:
        Whether there was anything to draw.
    """
    from matplotlib.ticker import MaxNLocator

    panels: dict[str, list[str]] = {}
    for label, line in results.outcomes.items():
        if _strategy(results, label) in ("bottom", "top") and any(o.history for o in line):
            panels.setdefault(results.line(label).backbone, []).append(label)
    if not panels:
        return False
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with drawing(
        path, figsize=(5 * columns + 1, 3.8 * rows), nrows=rows, ncols=columns, squeeze=False
    ) as (figure, axes):
        for axis, (backbone, labels) in zip(axes.flat, panels.items(), strict=False):
            for label in labels:
                _domain_curves(results, label, axis)
            axis.set(title=backbone, xlabel="epoch", ylabel="test accuracy (%)")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axis.grid(alpha=0.3)
        for axis in list(axes.flat)[len(panels) :]:
            axis.set_axis_off()
        handles = [
            axes.flat[0].plot([], [], color=COLOURS[i % len(COLOURS)], label=name)[0]
            for i, name in enumerate(results.domains)
        ] + [
            axes.flat[0].plot([], [], color="black", linestyle=_STYLES[s], label=s)[0]
            for s in ("bottom", "top")
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize="small")
    return True


def _domain_curves(results: Results, label: str, axis: Any) -> None:
    histories = [o.history for o in results.outcomes[label] if o.history]
    style = _STYLES[_strategy(results, label)]
    epochs = min(len(history.rows) for history in histories)
    for domain in results.domains_of(label):
        means = [
            summarize([100 * (h.rows[e].domains[domain]["test_accuracy"] or 0) for h in histories])
            for e in range(epochs)
        ]
        colour = COLOURS[results.domains.index(domain) % len(COLOURS)]
        axis.plot(range(1, epochs + 1), [m.mean for m in means], style, color=colour, linewidth=1.4)
    heads = results.outcomes[label][0].cell.joint.head_epochs
    if heads:
        axis.axvline(heads + 0.5, color="grey", linewidth=0.8, linestyle=":")


def share_figure(results: Results, path: Path) -> bool:
    """Accuracy against the share of own weights, a panel for each domain (Figure 3).

    Returns:
        Whether there was anything to draw.
    """
    points: dict[str, list[tuple[float, str]]] = {}
    for label, line in results.outcomes.items():
        if any(o.history for o in line):
            share = 100 * results.plan(label).weights_share
            strategies = ("bottom", "top", "random") if share in (0, 100) else ()
            for strategy in strategies or (_strategy(results, label),):
                points.setdefault(strategy, []).append((share, label))
    if not points:
        return False
    panels = [*results.domains, MEAN]
    with drawing(path, figsize=(11, 6.6), nrows=2, ncols=-(-len(panels) // 2), squeeze=False) as (
        figure,
        axes,
    ):
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, domain in zip(axes.flat, panels, strict=False):
            axis.set_axis_on()
            for index, (strategy, line) in enumerate(sorted(points.items())):
                _share_line(results, axis, domain, sorted(line), COLOURS[index], strategy)
            whole = results.summary("independent", domain)
            if whole:
                axis.axhline(whole.mean, color="grey", linewidth=1, label="independent")
            axis.set(title=domain, xlabel="own weights (%)", ylabel="test accuracy (%)")
            axis.grid(alpha=0.3)
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize="small")
    return True


def _share_line(
    results: Results,
    axis: Any,
    domain: str,
    line: list[tuple[float, str]],
    colour: str,
    strategy: str,
) -> None:
    found = [(share, s) for share, label in line if (s := results.summary(label, domain))]
    shares, means = [share for share, _ in found], [s.mean for _, s in found]
    axis.errorbar(
        shares,
        means,
        yerr=[s.std or 0 for _, s in found],
        color=colour,
        marker="o",
        markersize=3,
        capsize=2,
        linewidth=1.3,
        linestyle=_STYLES.get(strategy, "-"),
        label=strategy,
    )


def front_figure(results: Results, path: Path) -> bool:
    """Mean accuracy against the bytes stored, a colour for each backbone; the front is joined.

    Returns:
        Whether there was anything to draw.
    """
    found: dict[str, list[tuple[float, float, str]]] = {}
    for label in results.outcomes:
        summary = results.summary(label)
        if summary and results.domains_of(label) == results.domains:
            size = results.account(label).total.bytes / 1e6
            backbone = results.line(label).backbone
            found.setdefault(backbone, []).append((size, summary.mean, label))
    if not found:
        return False
    with drawing(path, figsize=(9, 5)) as (_, axis):
        for index, (backbone, points) in enumerate(found.items()):
            colour = COLOURS[index % len(COLOURS)]
            xs, ys, labels = zip(*sorted(points), strict=True)
            axis.plot(xs, ys, "o", color=colour, markersize=5, label=backbone)
            best = [i for i, y in enumerate(ys) if y >= max(ys[: i + 1])]
            axis.step([xs[i] for i in best], [ys[i] for i in best], where="post", color=colour,
                      linewidth=0.9, alpha=0.6)  # fmt: skip
            for x, y, label in zip(xs, ys, labels, strict=True):
                text = label.removeprefix(f"{backbone}, ")
                axis.annotate(text, (x, y), (4, 3), textcoords="offset points", fontsize=6.5)
        axis.set(
            xlabel="stored: shared part and all domains (MB)",
            ylabel="test accuracy, mean over domains (%)",
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return True
