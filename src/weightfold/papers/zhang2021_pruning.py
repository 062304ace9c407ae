"""The sharing paper's explanation, measured: magnitude pruning of one layer at a time.

The paper explains its finding by top layers that are more redundant (section 6) and says that
pruning bears it out; it prints no numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from weightfold.lab.claims import higher
from weightfold.lab.domains import DomainsTraining
from weightfold.lab.experiment import Claim, Experiment, Line, Preset, Quantity
from weightfold.lab.pruning import Pruning, Way
from weightfold.lab.results import Results
from weightfold.lab.run import Run
from weightfold.papers._zhang2021 import PAPER
from weightfold.papers.zhang2021_sharing import TABLE1
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import number
from weightfold.report.page import Section, Table
from weightfold.report.statistics import summarize

Record = Mapping[str, Any]

WAYS: tuple[Way, ...] = (("weights", 0.8), ("filters", 0.5))
_BACKBONES = {"smoke": ("SqueezeNet",), "cpu": ("MobileNetV2",), "paper": ("MobileNetV2",)}
_IMAGES = {"smoke": 20, "cpu": 100, "paper": 2000}
_SMOKE_DOMAINS = 2


def _of(records: Sequence[Record], way: Way) -> list[Record]:
    return [r for r in records if (r["unit"], r["share"]) == way]


def _by_layer(records: Sequence[Record]) -> dict[str, float]:
    """Layer -> mean drop over domains."""
    layers = dict.fromkeys(r["layer"] for r in records)
    return {name: fmean(r["drop"] for r in records if r["layer"] == name) for name in layers}


def _halves(records: Sequence[Record]) -> tuple[float, float]:
    """Mean drop of the bottom and of the top half of the layers."""
    drops = list(_by_layer(records).values())
    half = len(drops) // 2
    return fmean(drops[:half]), fmean(drops[-half:])


def _bottom(records: Sequence[Record]) -> float:
    return _halves(records)[0]


def _top(records: Sequence[Record]) -> float:
    return _halves(records)[1]


def _redundant(records: Sequence[Record]) -> float:
    """Share of the networks, one a domain, whose top half is the more redundant; percent."""
    domains = dict.fromkeys(r["domain"] for r in records)
    halves = [_halves([r for r in records if r["domain"] == name]) for name in domains]
    return 100 * fmean(bottom > top for bottom, top in halves)


def _rank(records: Sequence[Record]) -> float | None:
    """Rank correlation of depth and drop; None if all drops are equal."""
    from scipy.stats import spearmanr

    drops = list(_by_layer(records).values())
    if len({*drops}) == 1:
        return None
    return float(spearmanr(range(len(drops)), drops).statistic)


_MEASURES: Mapping[str, tuple[str, Callable[[Sequence[Record]], float | None]]] = {
    "bottom": ("drop, bottom half (points)", _bottom),
    "top": ("drop, top half (points)", _top),
    "redundant": ("networks with a more redundant top half (%)", _redundant),
    "rank": ("rank correlation of depth and drop", _rank),
}


def _measure(key: str, way: Way) -> Quantity:
    title, of = _MEASURES[key]
    return Quantity(f"{key}/{way[0]}", f"{_named(way)}: {title}", of=lambda r: of(_of(r, way)))


def _named(way: Way) -> str:
    return f"{way[1]:.0%} of the {way[0]}"


def _layers(results: Results, folder: Path) -> Iterator[Section]:
    """A table of the drop of every layer, for each backbone."""
    for label in results.outcomes:
        records = [record for one in results.records(label) for record in one]
        rows = []
        for layer, fact in {r["layer"]: r for r in records}.items():
            drops = [
                number(fmean(r["drop"] for r in _of(records, way) if r["layer"] == layer))
                for way in WAYS
            ]
            rows.append([layer, number(fact["depth"]), str(fact["filters"]), *drops])
        columns = ["layer", "depth", "filters", *(f"drop, {_named(way)}" for way in WAYS)]
        if rows:
            yield Section(f"{label}, by layer", "", Table(columns, rows))


def _draw(results: Results, path: Path) -> None:
    """The mean drop of every layer against its depth, a row a backbone and a panel a way."""
    labels = [label for label in results.outcomes if results.records(label)]
    size = (11, 3.8 * len(labels))
    with drawing(path, figsize=size, nrows=len(labels), ncols=len(WAYS), squeeze=False) as (
        _,
        axes,
    ):
        for row, label in zip(axes, labels, strict=True):
            for axis, way in zip(row, WAYS, strict=True):
                _draw_way(axis, [_of(records, way) for records in results.records(label)])
                axis.set(title=f"{label}: {way[1]:.0%} of a layer's {way[0]}", xlabel="depth")
            row[0].set_ylabel("accuracy drop (points)")
            row[0].legend(fontsize="small")


def _draw_way(axis: Any, seeds: Sequence[Sequence[Record]]) -> None:
    """The drops with their spread over seeds, depthwise layers apart."""
    facts = {r["layer"]: r for r in seeds[0]}
    drops = {x: summarize([_by_layer(records)[x] for records in seeds]) for x in facts}
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


def _line(backbone: str) -> Line:
    runs: dict[str, Run] = {}
    for preset, names in _BACKBONES.items():
        net = TABLE1.line(f"{backbone}, independent").runs[preset]
        if backbone in names and isinstance(net, DomainsTraining):
            if preset == "smoke":
                net = replace(net, domains=net.domains[:_SMOKE_DOMAINS])
            runs[preset] = Pruning(net, WAYS, _IMAGES[preset])
    return Line(backbone, runs)


PRUNING = Experiment(
    name="zhang2021-pruning",
    paper=f"{PAPER}, section 6",
    title="what pruning each layer alone costs, by depth",
    measures=tuple(_measure(key, way) for way in WAYS for key in _MEASURES),
    lines=(_line("MobileNetV2"), _line("SqueezeNet")),
    presets={
        name: Preset(size.seeds, size.differs, needs=size.needs)
        for name, size in TABLE1.presets.items()
    },
    claims=tuple(
        Claim(
            f"Top layers are the more redundant: without {_named(way)} the bottom half loses more.",
            higher(backbone, f"bottom/{way[0]}", f"top/{way[0]}", f"{_named(way)}, points"),
        )
        for way in WAYS
        for backbone in ("MobileNetV2",)
    ),
    notes="Networks trained each on one domain; one convolution at a time loses the given share of "
    "its weights (the smallest) or of its filters (of least norm), with nothing trained after. "
    "Drop: test accuracy before minus after, in points, mean over domains and seeds. Depth 0 is "
    "the first convolution, 1 the last before the classifier. If top layers are the more redundant "
    "ones, the drop falls with depth: bottom minus top is above 0, the rank correlation below.",
    draw=_draw,
    sections=_layers,
)

EXPERIMENTS = (PRUNING,)
