"""What an experiment of probes leaves in its folder: CSV, JSON, figures and one page."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from weightfold.files import write_csv, write_json
from weightfold.lab.claims import Verdict
from weightfold.lab.experiment_page import footer, machines
from weightfold.lab.probe_declare import Estimate, Printed, ProbeLine, ProbeMeasure
from weightfold.lab.probe_figures import draw_first_measure
from weightfold.lab.probe_results import ProbeResults
from weightfold.probes.finding import Finding
from weightfold.report.figures import erase
from weightfold.report.page import Section, Table, write_page
from weightfold.train.record import session

LINES = "lines"
"""Folder of each line's figure and measurements."""

_COMPARED = (
    "Ours: the estimate with its 95% interval over seeds; a sign > or < marks a bound: the value "
    "lies beyond what was tried. Difference: ours against the published number."
)


def write_results(results: ProbeResults, folder: Path, *, asked: Mapping[str, Any]) -> Path:
    """Write results.csv, results.json, figure.png, a figure and CSV file a line, and index.html.

    Args:
        results: Finished or not.
        folder: Made if missing.
        asked: What `report_experiment` was called with; goes into results.json.

    Returns:
        The page.
    """
    (folder / LINES).mkdir(parents=True, exist_ok=True)
    experiment = results.experiment
    verdicts = {claim.text: claim.check(results) for claim in experiment.claims}
    records = list(_records(results))
    write_csv(folder / "results.csv", records)
    write_json(folder / "results.json", _as_json(results, records, verdicts, asked))
    run = [line for line in experiment.lines if line.label in results.outcomes]
    left_out = [line for line in experiment.lines if line not in run and not line.not_run]
    not_run = [line for line in experiment.lines if line.not_run]
    sections = [
        Section("Results", _introduction(results), _table(results, run), _figure(results, folder)),
        *([Section("Claims", _CLAIMS, _claims(verdicts))] if verdicts else []),
        *([Section("Not run", "", _reasons(results, not_run))] if not_run else []),
        Section("How this differs from the papers", experiment.presets[results.preset].differs),
        *_details(results, folder / LINES),
        *([Section("Lines not in this preset", "", _table(results, left_out))] if left_out else []),
        *_missing(results),
        Section("Settings", "", _settings(results)),
        *machines(o.sessions for line in results.outcomes.values() for o in line),
    ]
    page = folder / "index.html"
    write_page(page, f"{experiment.name}: {experiment.title}", sections, footer=footer())
    return page


_CLAIMS = (
    "A claim holds if the whole 95% interval lies on its side; it is unclear if only the estimate "
    "does, or if there is but one seed."
)


def _introduction(results: ProbeResults) -> str:
    parts = (f"{results.experiment.paper}.", f"Preset {results.preset}.", _COMPARED)
    return "\n\n".join(filter(None, (*parts, results.experiment.notes)))


def _pairs(results: ProbeResults, line: ProbeLine) -> Iterator[tuple[ProbeMeasure, Any, Any]]:
    """(measure, ours, published) of a line, where either is known."""
    for measure in results.experiment.measures:
        ours = results.estimate(line.label, measure.key)
        printed = results.published(line.label, measure.key)
        if ours is not None or printed is not None:
            yield measure, ours, printed


def _records(results: ProbeResults) -> Iterator[dict[str, Any]]:
    """A record for each line and measure."""
    for line in results.experiment.lines:
        for measure, ours, printed in _pairs(results, line):
            yield {
                "line": line.label,
                "measure": measure.key,
                **{f.name: ours and getattr(ours, f.name) for f in fields(Estimate)},
                **{f"published_{f.name}": printed and getattr(printed, f.name)
                   for f in fields(Printed)},
                "not_run": line.not_run,
            }  # fmt: skip


def _as_json(
    results: ProbeResults,
    records: list[dict[str, Any]],
    verdicts: Mapping[str, Verdict],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "asked": dict(asked),
        "paper": results.experiment.paper,
        "results": records,
        "claims": [{"text": text, **asdict(verdict)} for text, verdict in verdicts.items()],
        "cells": [
            {
                "line": label,
                "folder": outcome.cell.folder,
                **asdict(outcome.cell),
                "finished": outcome.record is not None,
                "sessions": list(outcome.sessions),
            }
            for label, line in results.outcomes.items()
            for outcome in line
        ],
        "written": session(),
    }


def _table(results: ProbeResults, lines: list[ProbeLine]) -> Table:
    """A row for each line and measure: ours beside the published number."""
    several = len(results.experiment.measures) > 1
    columns = ["", *(["measure"] if several else []), _ours(results), "seeds", "published"]
    rows = []
    for line in lines:
        label, note = line.label, line.note
        for measure, ours, printed in _pairs(results, line):
            rows.append(
                [
                    label,
                    *([measure.title] if several else []),
                    show(ours, measure.digits) if ours else "not finished",
                    str(ours.n) if ours else "",
                    _printed(printed, measure.digits),
                    _difference(measure, ours, printed),
                    note,
                ]
            )
            label = note = ""
        if label:
            rows.append([label, *([""] if several else []), "not finished", "", "", "", note])
    return Table([*columns, "difference", "remarks"], rows)


def _ours(results: ProbeResults) -> str:
    measures = results.experiment.measures
    name = "ours" if len(measures) > 1 else measures[0].title
    return f"{name} [95% interval]"


def show(estimate: Estimate, digits: int) -> str:
    """An estimate with its interval."""
    text = f"{estimate.bound} {estimate.value:,.{digits}f}".strip()
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:,.{digits}f}, {estimate.high:,.{digits}f}]"


def _printed(printed: Printed | None, digits: int) -> str:
    if printed is None:
        return ""
    text = f"{printed.bound} {printed.value:,.{digits}f}".strip()
    return f"{text} ({printed.source})" if printed.source else text


def _difference(measure: ProbeMeasure, ours: Estimate | None, printed: Printed | None) -> str:
    """Ours against the published number; nothing where one of them is only a bound."""
    if ours is None or printed is None or ours.bound or printed.bound:
        return ""
    if measure.relative:
        return f"{ours.value / printed.value - 1:+.0%}"
    return f"{ours.value - printed.value:+z.{measure.digits}f}"


def _claims(verdicts: Mapping[str, Verdict]) -> Table:
    rows = [[text, verdict.holds, verdict.numbers] for text, verdict in verdicts.items()]
    return Table(["claim", "verdict", "ours"], rows)


def _reasons(results: ProbeResults, lines: list[ProbeLine]) -> Table:
    rows = [
        [
            line.label,
            "\n".join(
                f"{measure.title}: {_printed(printed, measure.digits)}"
                for measure, _, printed in _pairs(results, line)
            ),
            line.not_run,
        ]
        for line in lines
    ]
    return Table(["", "published", "why"], rows)


def _figure(results: ProbeResults, folder: Path) -> Path | None:
    """The figure above all, once something is finished."""
    path = folder / "figure.png"
    erase(path)
    if not any(map(results.records, results.outcomes)):
        return None
    (results.experiment.draw or draw_first_measure)(results, path)
    return path


def _details(results: ProbeResults, folder: Path) -> Iterator[Section]:
    """Each line's figure, headline, notes and table; what a probe means where it comes first."""
    explained: set[str] = set()
    for label in results.outcomes:
        for finding in results.records(label):
            if not isinstance(finding, Finding):
                continue
            printed = results.published(label, results.experiment.measures[0].key)
            if printed and not printed.bound:
                finding = finding.beside(printed.value)
            slug = "".join(c if c.isalnum() or c in "-." else "-" for c in label)
            image = folder / f"{slug}.png"
            finding.draw(image)
            if rows := finding.rows():
                write_csv(folder / f"{slug}.csv", rows)
            meaning = [] if finding.probe in explained else [finding.meaning]
            explained.add(finding.probe)
            text = "\n\n".join([finding.headline, *meaning, *finding.notes])
            yield Section(label, text, finding.table(), image)


def _missing(results: ProbeResults) -> list[Section]:
    if not results.missing:
        return []
    text = f"{len(results.missing)} cells are not finished; run the experiment again to go on."
    table = Table(["cell"], [[cell.folder] for cell in results.missing])
    return [Section("Missing cells", text, table)]


def _settings(results: ProbeResults) -> Table:
    """What each line's cells are; networks trained plainly, one a seed, in one row."""
    rows = []
    for label, outcomes in results.outcomes.items():
        said = asdict(outcomes[0].cell)
        recipe, seeds = said.pop("recipe"), said.pop("seeds", len(outcomes))
        said.pop("seed", None)
        rows.append([label, _options(said), _options(recipe or {}), str(seeds)])
    return Table(["", "settings", "recipe", "seeds"], rows)


def _options(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items() if value not in (None, ""))
