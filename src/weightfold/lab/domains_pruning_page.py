"""The page of the pruning experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from weightfold.files import write_csv, write_json
from weightfold.lab.claims import describe
from weightfold.lab.domains_pruning import PruningCell, PruningExperiment, Way
from weightfold.lab.experiment_page import footer
from weightfold.report.figures import COLOURS, drawing, erase
from weightfold.report.page import Section, Table, write_page
from weightfold.report.statistics import Summary, paired, summarize
from weightfold.train.record import session

Record = Mapping[str, Any]
_TEXT = (
    "Networks trained each on one domain; one convolution at a time loses the given share of its "
    "weights (the smallest) or of its filters (of least norm), with nothing trained after. Drop: "
    "test accuracy before minus after, in points, mean over domains and seeds. Depth 0 is the "
    "first convolution, 1 the last before the classifier. If top layers are the more redundant "
    "ones, the drop falls with depth: bottom minus top is above 0, the rank correlation below."
)


def write_results(
    experiment: PruningExperiment,
    preset: str,
    cells: Mapping[str, tuple[PruningCell, ...]],
    runs: Path,
    folder: Path,
    *,
    asked: Mapping[str, Any],
) -> Path:
    """Write results.csv, claims.csv, results.json, figure.png and index.html.

    Args:
        experiment: What was run.
        preset: In which preset.
        cells: Backbone -> its cells.
        runs: Folder of the runs.
        folder: Made if missing.
        asked: What `report_experiment` was called with.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        label: {cell.net.seed: r for cell in line if (r := cell.finished(runs)) is not None}
        for label, line in cells.items()
    }
    rows = [
        {"backbone": label, "seed": seed, **record}
        for label, seeds in found.items()
        for seed, records in seeds.items()
        for record in records
    ]
    claims = [
        {"backbone": label, **_judge(seeds, way)}
        for label, seeds in found.items()
        for way in experiment.ways
        if seeds
    ]
    write_csv(folder / "results.csv", rows)
    write_csv(folder / "claims.csv", claims)
    written = {"asked": dict(asked), "paper": experiment.paper, "written": session()}
    write_json(folder / "results.json", {**written, "claims": claims})
    figure = _draw(experiment, found, folder / "figure.png")
    text = f"{experiment.paper}.\n\n{_TEXT}"
    measured = ", ".join(f"{x}: {len(found[x])}/{len(cells[x])} seeds" for x in cells)
    sections = [
        Section("Results", f"{text}\n\nPreset {preset}; {measured}.", _claims(claims), figure),
        *[
            Section(f"{label}, by layer", "", _layers(seeds, experiment.ways))
            for label, seeds in found.items()
            if seeds
        ],
        Section("How this differs from the paper", experiment.differs[preset]),
    ]
    page = folder / "index.html"
    write_page(page, f"{experiment.name}: {experiment.title}", sections, footer=footer())
    return page


def _of(records: Sequence[Record], way: Way) -> list[Record]:
    return [r for r in records if (r["unit"], r["share"]) == way]


def _by_layer(records: Sequence[Record]) -> dict[str, float]:
    """Layer -> mean drop over domains."""
    layers = dict.fromkeys(r["layer"] for r in records)
    return {name: fmean(r["drop"] for r in records if r["layer"] == name) for name in layers}


def _judge(seeds: Mapping[int, Sequence[Record]], way: Way) -> dict[str, Any]:
    """Bottom half against top half of the layers, and the rank correlation with depth, by seed."""
    from scipy.stats import spearmanr

    bottom, top, ranks, held, cells = [], [], [], 0, 0
    for records in seeds.values():
        chosen = _of(records, way)
        drops = list(_by_layer(chosen).values())
        half = len(drops) // 2
        bottom.append(fmean(drops[:half]))
        top.append(fmean(drops[-half:]))
        if len({*drops}) > 1:
            ranks.append(float(spearmanr(range(len(drops)), drops).statistic))
        for domain in dict.fromkeys(r["domain"] for r in chosen):
            mine = list(_by_layer([r for r in chosen if r["domain"] == domain]).values())
            held += fmean(mine[:half]) > fmean(mine[-half:])
            cells += 1
    return {
        "pruned": f"{way[1]:.0%} of the {way[0]}",
        "bottom_half_drop": fmean(bottom),
        "top_half_drop": fmean(top),
        "difference": describe(paired(bottom, top)),
        "networks_with_more_redundant_top": held,
        "networks": cells,
        "rank_correlation_with_depth": fmean(ranks) if ranks else None,
    }


def _claims(claims: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        "",
        "pruned",
        "drop, bottom half",
        "drop, top half",
        "bottom minus top",
        "networks in which the top half is more redundant",
        "rank correlation of depth and drop",
    ]
    rows = [
        [
            c["backbone"],
            c["pruned"],
            f"{c['bottom_half_drop']:.2f}",
            f"{c['top_half_drop']:.2f}",
            c["difference"],
            f"{c['networks_with_more_redundant_top']} of {c['networks']}",
            _signed(c["rank_correlation_with_depth"]),
        ]
        for c in claims
    ]
    return Table(columns, rows)


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2f}"


def _layers(seeds: Mapping[int, Sequence[Record]], ways: Sequence[Way]) -> Table:
    records = [record for one in seeds.values() for record in one]
    facts = {r["layer"]: r for r in records}
    rows = []
    for layer, fact in facts.items():
        drops = [
            f"{fmean(r['drop'] for r in _of(records, way) if r['layer'] == layer):.2f}"
            for way in ways
        ]
        rows.append([layer, f"{fact['depth']:.2f}", str(fact["filters"]), *drops])
    columns = ["layer", "depth", "filters", *(f"drop, {s:.0%} of {u}" for u, s in ways)]
    return Table(columns, rows)


def _draw(
    experiment: PruningExperiment, found: Mapping[str, Mapping[int, Any]], path: Path
) -> Path | None:
    labels = [label for label in found if found[label]]
    if not labels:
        erase(path)
        return None
    with drawing(
        path, figsize=(11, 3.8 * len(labels)), nrows=len(labels), ncols=len(experiment.ways),
        squeeze=False,
    ) as (_, axes):  # fmt: skip
        for row, label in zip(axes, labels, strict=True):
            for axis, way in zip(row, experiment.ways, strict=True):
                _draw_way(axis, found[label], way)
                axis.set(title=f"{label}: {way[1]:.0%} of a layer's {way[0]}", xlabel="depth")
            row[0].set_ylabel("accuracy drop (points)")
            row[0].legend(fontsize="small")
    return path


def _draw_way(axis: Any, seeds: Mapping[int, Sequence[Record]], way: Way) -> None:
    """The mean drop of every layer with its spread over seeds, depthwise layers apart."""
    chosen = [_of(records, way) for records in seeds.values()]
    facts = {r["layer"]: r for r in chosen[0]}
    drops: dict[str, Summary] = {
        layer: summarize([_by_layer(records)[layer] for records in chosen]) for layer in facts
    }
    for index, (name, depthwise) in enumerate((("dense", False), ("depthwise", True))):
        layers = [layer for layer in facts if facts[layer]["depthwise"] == depthwise]
        if layers:
            axis.errorbar(
                [facts[layer]["depth"] for layer in layers],
                [drops[layer].mean for layer in layers],
                yerr=[drops[layer].std or 0 for layer in layers],
                fmt="o",
                markersize=4,
                capsize=2,
                color=COLOURS[index],
                label=name,
            )
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.grid(alpha=0.3)
