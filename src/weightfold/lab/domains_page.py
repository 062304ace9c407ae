"""What an experiment on several domains leaves in its folder: CSV, JSON, figures and a page."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from weightfold.files import write_csv, write_json
from weightfold.lab.claims import describe
from weightfold.lab.domains_cell import DomainCell
from weightfold.lab.domains_declare import Counted
from weightfold.lab.domains_figures import accuracy_curves, front_figure, share_figure
from weightfold.lab.domains_results import MEAN, Epoch, Results
from weightfold.lab.experiment_page import footer, machines
from weightfold.report.figures import Dot, dot_plot, erase
from weightfold.report.page import Section, Table, write_page
from weightfold.report.statistics import Summary
from weightfold.train.record import session

_CLAIMS = (
    "A cell is one domain of one comparison. Held: the mean of our paired differences over seeds "
    "is on the claim's side. Clear: so is the whole 95% Student-t interval; against: the interval "
    "lies on the other side. Difference: of the mean over all cells, in points, paired by seed. "
    "The best epoch is chosen on test images, by the mean over domains: optimistic, and the paper "
    "does not say which it reports. The paper's count is of all its printed numbers, one run each."
)
_CURVES = (
    "Means over seeds. Left of the dotted line only the classifiers are trained, on the frozen "
    "backbone."
)
_COSTS = (
    "Counted before training. Own weights and own compute: a domain's share of the convolutions' "
    "parameters and multiply-adds. Parameters: of all domains together, shared ones once; MB: of "
    "all tensors, buffers included. Lines with fewer domains are not in the figure."
)


def write_results(results: Results, folder: Path, *, asked: Mapping[str, Any]) -> Path:
    """Write results.csv, claims.csv, results.json, figures and index.html.

    Args:
        results: Finished or not.
        folder: Made if missing.
        asked: What `report_experiment` was called with; goes into results.json.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    experiment = results.experiment
    records, claims = list(_records(results)), _claims(results)
    write_csv(folder / "results.csv", records)
    write_csv(folder / "claims.csv", claims)
    write_json(folder / "results.json", _as_json(results, records, claims, asked))
    figure = _draw_dots(results, folder / "figure.png")
    sections = [
        Section("Results", _introduction(results), _table(results), figure),
        *_published(results),
        Section("Claims", _CLAIMS, _claims_table(claims)),
        *_figures(results, folder),
        Section("How this differs from the paper", experiment.presets[results.preset].differs),
        *_unfinished(results),
        Section("Settings", "", _settings(results)),
        *machines(o.sessions for line in results.outcomes.values() for o in line),
    ]
    page = folder / "index.html"
    write_page(page, f"{experiment.name}: {experiment.title}", sections, footer=footer())
    return page


def _introduction(results: Results) -> str:
    size, experiment = results.experiment.presets[results.preset], results.experiment
    data = "; ".join(f"{d.name}: {d.data}" for d in size.domains)
    text = (
        f"Preset {results.preset}; domains: {data}. Test accuracy in percent after the last epoch, "
        "mean ± sample standard deviation over seeds, and the mean over domains also at the best "
        "epoch."
    )
    return "\n\n".join(filter(None, (f"{experiment.paper}.", text, experiment.notes)))


def _records(results: Results) -> Iterator[dict[str, Any]]:
    """A record for each line and domain, the mean over domains included."""
    for line in results.experiment.lines:
        ours = results.domains_of(line.label)
        published = dict(line.published or {})
        if published:
            published[MEAN] = fmean(published.values())
        names = [*ours, *(d for d in published if d not in (*ours, MEAN)), MEAN]
        for domain in names:
            last, best = (results.summary(line.label, domain, e) for e in get_args(Epoch))
            values = results.values(line.label, domain)
            if last is None and domain not in published:
                continue
            yield {
                "line": line.label,
                "backbone": line.backbone,
                "plan": line.plan,
                "domain": domain,
                "n": last.n if last else 0,
                "last_mean": last and last.mean,
                "last_std": last and last.std,
                "best_mean": best and best.mean,
                "best_std": best and best.std,
                "published": round(100 * published[domain], 3) if domain in published else None,
                "seeds": " ".join(map(str, values)),
                "last_values": " ".join(f"{value:.6g}" for value in values.values()),
            }


def _claims(results: Results) -> list[dict[str, Any]]:
    """Every claim, and below it each of its comparisons that was run."""
    rows = []
    for claim in results.experiment.claims:
        rows.append(_claim(results, claim, ""))
        if len(claim.pairs) > 1:
            for a, b in claim.pairs:
                row = _claim(results, replace(claim, pairs=((a, b),)), f"({a}) - ({b})")
                rows += [row] if row["cells"] else []
    return rows


def _claim(results: Results, claim: Counted, comparison: str) -> dict[str, Any]:
    last, best = (results.count(claim, epoch) for epoch in get_args(Epoch))
    paper = results.published_count(claim)
    return {
        "claim": claim.text,
        "comparison": comparison,
        "held": last.held,
        "clear": last.clear,
        "against": last.against,
        "cells": last.of,
        "held_best_epoch": best.held,
        "difference": describe(last.difference) if last.difference else "not run",
        "difference_best_epoch": describe(best.difference) if best.difference else "not run",
        "paper_held": paper and paper[0],
        "paper_cells": paper and paper[1],
        "paper_difference": paper and paper[2],
    }


def _claims_table(claims: list[dict[str, Any]]) -> Table:
    columns = [
        "claim",
        "held, last epoch",
        "clear",
        "against",
        "held, best epoch",
        "difference, last epoch",
        "paper held",
        "paper difference",
    ]
    rows = []
    for c in claims:
        of = c["cells"]
        ours = [f"{c['held']} of {of}", str(c["clear"]), str(c["against"])]
        ours = [*ours, f"{c['held_best_epoch']} of {of}"] if of else ["not run", "", "", ""]
        paper = ["not printed", ""]
        if c["paper_held"] is not None:
            paper = [f"{c['paper_held']} of {c['paper_cells']}", f"{c['paper_difference']:+.2f}"]
        rows.append([c["comparison"] or c["claim"], *ours, c["difference"] if of else "", *paper])
    return Table(columns, rows)


def _table(results: Results) -> Table:
    """Accuracies."""
    rows = []
    for label, outcomes in results.outcomes.items():
        runs = f"{sum(o.history is not None for o in outcomes)}/{len(outcomes)}"
        shown = [_show(results.summary(label, domain)) for domain in [*results.domains, MEAN]]
        rows.append([label, runs, *shown, _show(results.summary(label, MEAN, "best"))])
    return Table(["", "runs", *results.domains, "mean", "mean, best epoch"], rows)


def _costs(results: Results) -> Table:
    """What each line stores and computes."""
    printed = any(line.parameters for line in results.experiment.lines)
    rows = []
    for label in results.outcomes:
        plan, account = results.plan(label), results.account(label)
        domain = next(iter(account.domains.values()))
        rows.append(
            [
                label,
                f"{plan.weights_share:.1%}",
                f"{plan.macs_share:.1%}",
                f"{account.total.parameters / 1e6:.2f}",
                *([results.line(label).parameters] if printed else []),
                f"{account.shared.bytes / 1e6:.2f}",
                f"{domain.bytes / 1e6:.2f}",
                f"{account.total.bytes / 1e6:.2f}",
            ]
        )
    columns = ["", "own weights", "own compute", "parameters (M)"]
    columns += ["published"] if printed else []
    columns += ["shared (MB)", f"{results.domains[0]} (MB)", "all (MB)"]
    return Table(columns, rows)


def _show(found: Summary | None) -> str:
    if found is None:
        return ""
    return f"{found.mean:.2f}" + (f" ± {found.std:.2f}" if found.std is not None else "")


def _published(results: Results) -> list[Section]:
    """The paper's accuracies, with ours minus them where the domains are the paper's."""
    lines = [line for line in results.experiment.lines if line.published]
    if not lines:
        return []
    names = list(dict.fromkeys(domain for line in lines for domain in line.published or {}))
    same = {*names} <= {*results.domains}
    rows = []
    for line in lines:
        printed, ours = line.published or {}, results.summary(line.label)
        mean = 100 * fmean(printed.values())
        cells = [f"{100 * printed[d]:.2f}" if d in printed else "" for d in names]
        beside = f"{ours.mean - mean:+.2f}" if same and ours else ""
        ours_mean = f"{ours.mean:.2f}" if ours else ""
        rows.append([line.label, *cells, f"{mean:.2f}", ours_mean, *([beside] if same else [])])
    text = "Validation accuracy in percent as printed, and our mean over our domains beside it."
    if not same:
        text += " The domains differ: compare the order of the lines, not the numbers."
    columns = ["", *names, "mean", "our mean", *(["difference"] if same else [])]
    return [Section("Published", text, Table(columns, rows))]


def _draw_dots(results: Results, path: Path) -> Path | None:
    dots = []
    for label in results.outcomes:
        printed, ours = results.line(label).published, results.summary(label)
        if printed or ours:
            published = (100 * fmean(printed.values()), None) if printed else None
            dots.append(Dot(label, ours, published))
    if not dots:
        erase(path)
        return None
    title = f"{results.experiment.name}, preset {results.preset}"
    dot_plot(dots, path, title=title, unit="test accuracy, last epoch, mean over domains (%)")
    return path


def _figures(results: Results, folder: Path) -> list[Section]:
    drawn = {
        "curves": (accuracy_curves, "Accuracy while training", _CURVES),
        "share": (share_figure, "Accuracy against own weights", ""),
        "front": (front_figure, "Storage and accuracy", _COSTS),
    }
    sections = []
    for name in (*results.experiment.figures, "front"):
        draw, title, text = drawn[name]
        path = folder / f"{name}.png"
        there = draw(results, path)
        if not there:
            erase(path)
        if there or name == "front":
            table = _costs(results) if name == "front" else None
            sections.append(Section(title, text, table, path if there else None))
    return sections


def _unfinished(results: Results) -> list[Section]:
    if not results.missing:
        return []
    text = f"{len(results.missing)} cells are not finished; run the experiment again to go on."
    return [Section("Missing cells", text, Table(["cell"], [[c.folder] for c in results.missing]))]


def _settings(results: Results) -> Table:
    """Every backbone's recipe, and how it is trained jointly."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for label, line in results.outcomes.items():
        cell = line[0].cell
        recipe, joint = (
            ", ".join(f"{key}={value}" for key, value in asdict(given).items())
            for given in (cell.recipe, cell.joint)
        )
        start = cell.start.folder if isinstance(cell.start, DomainCell) else cell.start
        seeds = " ".join(str(outcome.cell.seed) for outcome in line)
        key = (cell.model, recipe, joint, start or "at random", seeds)
        rows.setdefault(key, []).append(label)
    columns = ["lines", "model", "recipe", "together", "starts from", "seeds"]
    return Table(columns, [["; ".join(labels), *key] for key, labels in rows.items()])


def _as_json(
    results: Results,
    records: list[dict[str, Any]],
    claims: list[dict[str, Any]],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "asked": dict(asked),
        "paper": results.experiment.paper,
        "results": records,
        "claims": claims,
        "lines": {
            label: {
                "plan": str(results.plan(label)),
                **{
                    f"{part}_{unit}": getattr(getattr(account, part), unit)
                    for part in ("total", "independent")
                    for unit in ("parameters", "bytes")
                },
            }
            for label in results.outcomes
            for account in [results.account(label)]
        },
        "cells": [
            {
                "line": label,
                "folder": outcome.cell.folder,
                **asdict(outcome.cell),
                "history": outcome.history and outcome.history.as_json(),
                "sessions": list(outcome.sessions),
            }
            for label, line in results.outcomes.items()
            for outcome in line
        ],
        "written": session(),
    }
