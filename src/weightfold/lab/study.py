"""The page that compares ways to share a backbone: bottom, top, random and independent."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table as RichTable

from weightfold.files import write_csv, write_json
from weightfold.report.figures import COLOURS, draw_curve, drawing
from weightfold.report.page import Section, Table, write_page
from weightfold.report.statistics import Summary, paired, summarize
from weightfold.train.domains.history import DomainsHistory
from weightfold.train.record import session

INDEPENDENT = "independent"
"""Strategy of one network per domain."""


@dataclass(frozen=True)
class Outcome:
    """All domains trained one way, with one seed.

    Attributes:
        strategy: The way: "bottom", "top", "random", "masks" or "independent".
        seed: Of the run.
        histories: Domain -> the run it was trained in; the same run for all, if together.
        parameters: Of all domains, each with its classifier.
        bytes: The same, every buffer included.
        shared_bytes: Of those, what exists once for all domains.
        weights_share: A domain's own share of the convolutions' weights, 0 to 1.
        macs_share: Of their multiply-adds.
    """

    strategy: str
    seed: int
    histories: Mapping[str, DomainsHistory]
    parameters: int
    bytes: int
    shared_bytes: int
    weights_share: float
    macs_share: float

    @property
    def accuracies(self) -> dict[str, float]:
        """Domain -> test accuracy after the last epoch, in [0, 1]."""
        return {name: run.last_accuracies[name] for name, run in self.histories.items()}

    @property
    def mean(self) -> float:
        """Mean of them over domains."""
        return fmean(self.accuracies.values())

    @property
    def seconds(self) -> float:
        """Wall time of all its runs."""
        return sum(run.seconds for run in {id(r): r for r in self.histories.values()}.values())

    def curve(self, domain: str) -> list[float]:
        """Test accuracy of a domain by epoch."""
        rows = self.histories[domain].rows
        return [row.domains[domain]["test_accuracy"] or 0.0 for row in rows]


def write_study(
    outcomes: Sequence[Outcome], folder: Path, *, title: str, asked: Mapping[str, Any]
) -> Path:
    """Write index.html, results.json, runs.csv, curves.png and storage.png.

    Args:
        outcomes: One per strategy and seed, of the same domains and seeds.
        folder: There already.
        title: Of the page.
        asked: What was asked for, as JSON values.

    Returns:
        The page.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
    """
    now, runs = session(), [_run(outcome) for outcome in outcomes]
    write_csv(folder / "runs.csv", runs)
    write_json(
        folder / "results.json",
        {"asked": dict(asked), "results": _results(outcomes), "runs": runs, "session": now},
    )
    _curves(outcomes, folder / "curves.png")
    _storage(outcomes, folder / "storage.png")
    results = Table(*_cells(outcomes))
    sections = [
        Section("Results", _how(outcomes), results),
        *(
            [Section("What this says", _DIFFERENCES, _verdicts(outcomes))]
            if _pairs(outcomes)
            else []
        ),
        Section("Accuracy by epoch, each domain", "", image=folder / "curves.png"),
        Section("Accuracy and storage", _STORAGE, image=folder / "storage.png"),
        Section("Every run", "", _runs(outcomes)),
        Section("Settings", _settings(asked)),
    ]
    footer = "\n".join(f"{key}: {value}" for key, value in now.items())
    write_page(folder / "index.html", title, sections, footer=footer)
    return folder / "index.html"


def results_table(outcomes: Sequence[Outcome]) -> RichTable:
    """The table of results, for a terminal."""
    columns, rows = _cells(outcomes)
    table = RichTable(title="test accuracy after the last epoch, %", title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    for row in rows:
        table.add_row(*row)
    return table


_DIFFERENCES = (
    "Differences of the mean accuracy over domains, run against run of the same seed, in "
    "percentage points, with the 95% Student interval of their mean; and in how many domains the "
    "mean over seeds is higher. One seed gives no interval, and no verdict."
)
_STORAGE = (
    "Bytes of all domains together, classifiers and batch norm included, against the mean test "
    "accuracy over domains; points of one size are set a little apart. Up and left is better."
)


def _settings(asked: Mapping[str, Any]) -> str:
    """A paragraph of the command's own options, and one of each group of them."""
    groups = {"Sharing": "sharing", "Together": "joint", "Recipe": "recipe"}
    own = {k: v for k, v in asked.items() if k not in (*groups.values(), "folder", "data_root")}
    if asked.get("plan") is not None:
        del groups["Sharing"]  # the plan says it
    grouped = [f"{title}: {_told(asked[key])}" for title, key in groups.items() if key in asked]
    return "\n\n".join([_told(own), *grouped])


def _told(options: Mapping[str, Any]) -> str:
    """Names and values of the options that are set."""
    shown = {
        key: " ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in options.items()
        if value is not None and value != []
    }
    return "; ".join(f"{key} {value}" for key, value in shown.items())


def _how(outcomes: Sequence[Outcome]) -> str:
    seeds = len({outcome.seed for outcome in outcomes})
    text = (
        f"Test accuracy in % after the last epoch: mean over {seeds} seeds ± sample standard "
        "deviation. "
        if seeds > 1
        else "Test accuracy in % after the last epoch, of one seed: no spread is known. "
    )
    text += (
        "Own weights and own multiply-adds are a domain's share of the convolutions; at equal "
        "weights the bottom holds more of the compute than the top. "
    )
    if any(outcome.strategy == INDEPENDENT for outcome in outcomes):
        text += (
            "Independent is one whole network per domain, trained with as many steps a domain as "
            "the others."
        )
    return text


def _cells(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the results: a column for each strategy."""
    strategies = _by_strategy(outcomes)
    figures: dict[str, Callable[[list[Outcome]], str]] = {
        name: lambda runs, name=name: _percent(summarize([r.accuracies[name] for r in runs]))
        for name in outcomes[0].histories
    }
    figures |= {
        "mean over domains": lambda runs: _percent(summarize([r.mean for r in runs])),
        "parameters": lambda runs: f"{round(fmean(r.parameters for r in runs)):,}",
        "MB": lambda runs: _megabytes(r.bytes for r in runs),
        "MB shared": lambda runs: _megabytes(r.shared_bytes for r in runs),
        "MB a domain": lambda runs: _megabytes(
            (r.bytes - r.shared_bytes) / len(r.histories) for r in runs
        ),
        "own weights": lambda runs: f"{fmean(r.weights_share for r in runs):.1%}",
        "own multiply-adds": lambda runs: f"{fmean(r.macs_share for r in runs):.1%}",
    }
    rows = [[name, *(of(runs) for runs in strategies.values())] for name, of in figures.items()]
    return ["", *strategies], rows


def _results(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    found = []
    for strategy, runs in _by_strategy(outcomes).items():
        for domain in (*outcomes[0].histories, None):
            values = [run.mean if domain is None else run.accuracies[domain] for run in runs]
            summary = summarize(values)
            found.append(
                {
                    "strategy": strategy,
                    "domain": domain,
                    "mean": summary.mean,
                    "std": summary.std,
                    "n": summary.n,
                }
            )
    return found


def _pairs(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Pairs to compare: what was named first with each other one."""
    first, *others = _by_strategy(outcomes)
    return [(first, other) for other in others]


def _verdicts(outcomes: Sequence[Outcome]) -> Table:
    runs = _by_strategy(outcomes)
    rows = []
    for one, other in _pairs(outcomes):
        means = {n: {r.seed: r.mean for r in runs[n]} for n in (one, other)}
        difference = paired(list(means[one].values()), [means[other][s] for s in means[one]])
        higher = sum(
            fmean(r.accuracies[name] for r in runs[one])
            > fmean(r.accuracies[name] for r in runs[other])
            for name in outcomes[0].histories
        )
        interval = (
            ""
            if difference.low is None or difference.high is None
            else f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
        )
        domains = len(outcomes[0].histories)
        rows.append(
            [
                f"{one} against {other}",
                f"{100 * difference.mean:+.2f}",
                interval,
                f"{higher} of {domains}",
                _verdict(one, other, difference.low, difference.high),
            ]
        )
    return Table(["compared", "difference", "95% interval", "higher in domains", "verdict"], rows)


def _verdict(one: str, other: str, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "one seed: unknown"
    return f"{one} is better" if low > 0 else f"{other} is better" if high < 0 else "unclear"


def _run(outcome: Outcome) -> dict[str, Any]:
    """A row of runs.csv."""
    return {
        "strategy": outcome.strategy,
        "seed": outcome.seed,
        "mean_accuracy": outcome.mean,
        **{f"accuracy/{name}": value for name, value in outcome.accuracies.items()},
        "parameters": outcome.parameters,
        "bytes": outcome.bytes,
        "shared_bytes": outcome.shared_bytes,
        "weights_share": outcome.weights_share,
        "macs_share": outcome.macs_share,
        "seconds": outcome.seconds,
    }


def _runs(outcomes: Sequence[Outcome]) -> Table:
    domains = list(outcomes[0].histories)
    rows = [
        [
            outcome.strategy,
            str(outcome.seed),
            *(f"{100 * outcome.accuracies[name]:.2f}" for name in domains),
            f"{100 * outcome.mean:.2f}",
            f"{outcome.parameters:,}",
            f"{outcome.seconds:.1f}",
        ]
        for outcome in outcomes
    ]
    return Table(["strategy", "seed", *domains, "mean", "parameters", "seconds"], rows)


def _curves(outcomes: Sequence[Outcome], path: Path) -> None:
    """A panel per domain: test accuracy by epoch, the mean over seeds in a band of one std."""
    domains = list(outcomes[0].histories)
    columns = min(3, len(domains))
    rows = math.ceil(len(domains) / columns)
    size = (4.2 * columns + 0.6, 3.4 * rows)
    shape = {"nrows": rows, "ncols": columns, "squeeze": False}
    with drawing(path, figsize=size, **shape) as (_, grid):
        axes = list(grid.flat)
        for axis, domain in zip(axes, domains, strict=False):
            for index, (strategy, runs) in enumerate(_by_strategy(outcomes).items()):
                curves = [[100 * value for value in run.curve(domain)] for run in runs]
                draw_curve(axis, index, strategy, curves)
            axis.set(title=domain, xlabel="epoch", ylabel="test accuracy (%)")
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axis.grid(alpha=0.3)
        for axis in axes[len(domains) :]:
            axis.set_axis_off()
        axes[0].legend(fontsize="small")


def _storage(outcomes: Sequence[Outcome], path: Path) -> None:
    """Mean accuracy and its std over seeds against megabytes; equal sizes a little apart."""
    strategies = _by_strategy(outcomes)
    apart = max(outcome.bytes for outcome in outcomes) / 1e6 / 60
    with drawing(path, figsize=(10, 4)) as (_, axis):
        for index, (strategy, runs) in enumerate(strategies.items()):
            accuracy = summarize([100 * run.mean for run in runs])
            x = fmean(run.bytes for run in runs) / 1e6
            x += apart * (index - (len(strategies) - 1) / 2)
            axis.errorbar(
                x,
                accuracy.mean,
                yerr=accuracy.std,
                fmt="o",
                capsize=3,
                color=COLOURS[index % len(COLOURS)],
                label=strategy,
            )
        axis.set(xlabel="MB, all domains", ylabel="mean test accuracy (%)", xlim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")


def _by_strategy(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.strategy, []).append(outcome)
    return found


def _megabytes(sizes: Iterable[float]) -> str:
    """Mean of a number of bytes over runs."""
    return f"{fmean(sizes) / 1e6:.3f}"


def _percent(summary: Summary) -> str:
    spread = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f}{spread}"
