"""What an experiment leaves in its folder: CSV, JSON, figures and a page, from its results."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weightfold.files import write_csv, write_json
from weightfold.lab.claims import Verdict
from weightfold.lab.declare import Number
from weightfold.lab.measures import learning_panels
from weightfold.lab.outcomes import Results
from weightfold.report.figures import Dot, dot_plot, erase, learning_curves
from weightfold.report.page import Section, Table, write_page
from weightfold.train.record import session

_MACHINE = ("weightfold", "commit", "torch", "python", "platform", "cpu", "cpu_count", "threads")


def write_results(results: Results, folder: Path, *, asked: Mapping[str, Any]) -> Path:
    """Write results.csv, results.json, figure.png, curves.png and index.html.

    Args:
        results: Finished or not.
        folder: Made if missing.
        asked: What `report_experiment` was called with; goes into results.json.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    experiment = results.experiment
    verdicts = {claim.text: claim.check(results) for claim in experiment.claims}
    records = list(_records(results))
    write_csv(folder / "results.csv", records)
    write_json(folder / "results.json", _as_json(results, records, verdicts, asked))
    figure = _draw_figure(results, folder / "figure.png")
    curves = _draw_curves(results, folder / "curves.png")
    page = folder / "index.html"
    title = f"{experiment.name}: {experiment.title}"
    run = [line.label for line in experiment.lines if line.label in results.outcomes]
    rest = [line.label for line in experiment.lines if line.label not in results.outcomes]
    sections = [
        Section("Results", _introduction(results), _table(results, run), figure),
        *([Section("Claims", _CLAIMS, _claims(verdicts))] if verdicts else []),
        *([Section("Learning curves", "", None, curves)] if curves else []),
        Section(
            "How this differs from the paper", results.experiment.presets[results.preset].differs
        ),
        *([Section("Lines not in this preset", "", _table(results, rest))] if rest else []),
        *_absent(results),
        Section("Settings", "", _settings(results)),
        *machines(o.sessions for line in results.outcomes.values() for o in line),
    ]
    write_page(page, title, sections, footer=footer())
    return page


_CLAIMS = (
    "Differences are paired by seed, in the unit of the table. A claim holds if the whole 95% "
    "Student-t interval of the mean difference lies on its side; it is unclear if only the mean "
    "does, or if there is but one seed."
)


def _introduction(results: Results) -> str:
    experiment, column = results.experiment, results.column
    compared = (
        "Ours: mean ± sample standard deviation over seeds. Published: the paper's mean ± "
        "standard deviation. Difference: ours minus published, of the means."
    )
    data = {outcome.cell.data for line in results.outcomes.values() for outcome in line}
    used = f"Preset {results.preset}; data: {'; '.join(sorted(data))}."
    if not any(spec.partition(",")[0] == column.name for spec in data):
        used += f" The published numbers are for {column.title}: they are not comparable."
    return "\n\n".join(filter(None, (experiment.paper + ".", used, compared, experiment.notes)))


def _records(results: Results) -> Iterator[dict[str, Any]]:
    """A record for each line and measure."""
    for line in results.experiment.lines:
        for measure in results.experiment.measures:
            values = results.values(line.label, measure.key)
            ours = results.summary(line.label, measure.key)
            printed = results.published(line.label, measure.key)
            if ours is None and printed is None:
                continue
            yield {
                "line": line.label,
                "model": line.model,
                "variant": line.variant,
                "measure": measure.key,
                "n": ours.n if ours else 0,
                "mean": ours and ours.mean,
                "std": ours and ours.std,
                "published_mean": printed and printed[0],
                "published_std": printed and printed[1],
                "difference": ours.mean - printed[0] if ours and printed else None,
                "seeds": " ".join(map(str, values)),
                "values": " ".join(f"{value:.6g}" for value in values.values()),
            }


def _as_json(
    results: Results,
    records: list[dict[str, Any]],
    verdicts: Mapping[str, Verdict],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "asked": dict(asked),
        "paper": results.experiment.paper,
        "column": results.column.name,
        "results": records,
        "claims": [{"text": text, **asdict(verdict)} for text, verdict in verdicts.items()],
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


def _table(results: Results, labels: list[str]) -> Table:
    """Ours, published and difference, for every measure that any of the lines has."""
    columns, rows = [""], [[label] for label in labels]
    if results.outcomes.keys() & labels:
        columns.append("runs")
        for row in rows:
            row.append(_runs(results, row[0]))
    for measure in results.experiment.measures:
        digits = measure.digits
        ours = [results.summary(label, measure.key) for label in labels]
        printed = [results.published(label, measure.key) for label in labels]
        if any(ours):
            columns.append(measure.title)
            for row, one in zip(rows, ours, strict=True):
                row.append(_show((one.mean, one.std) if one else None, digits))
        if any(printed):
            columns.append("published" if any(ours) else f"{measure.title}, published")
            for row, number in zip(rows, printed, strict=True):
                row.append(_show(number, digits))
        if any(ours) and any(printed):
            columns.append("difference")
            for row, one, number in zip(rows, ours, printed, strict=True):
                row.append(f"{one.mean - number[0]:+z.{digits}f}" if one and number else "")
    return Table(columns, rows)


def _runs(results: Results, label: str) -> str:
    """Finished of all."""
    outcomes = results.outcomes[label]
    return f"{sum(outcome.history is not None for outcome in outcomes)}/{len(outcomes)}"


def _show(number: Number | None, digits: int) -> str:
    if number is None:
        return ""
    mean, std = number
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def _claims(verdicts: Mapping[str, Verdict]) -> Table:
    rows = [[text, verdict.holds, verdict.numbers] for text, verdict in verdicts.items()]
    return Table(["claim", "verdict", "differences"], rows)


def _draw_figure(results: Results, path: Path) -> Path:
    measure = results.experiment.measures[0]
    dots = [
        Dot(line.label, ours, printed)
        for line in results.experiment.lines_of(results.preset)
        for ours in [results.summary(line.label, measure.key)]
        for printed in [results.published(line.label, measure.key)]
        if ours or printed
    ]
    title = f"{results.experiment.name}, preset {results.preset}, beside {results.column.title}"
    dot_plot(dots, path, title=title, unit=measure.title)
    return path


def _draw_curves(results: Results, path: Path) -> Path | None:
    histories = {
        label: [outcome.history for outcome in line if outcome.history]
        for label, line in results.outcomes.items()
    }
    if max((len(h.rows) for line in histories.values() for h in line), default=0) < 2:
        erase(path)
        return None
    panels = learning_panels(histories)
    learning_curves(panels, path, title=f"{results.experiment.name}, preset {results.preset}")
    return path


def _absent(results: Results) -> list[Section]:
    """What the table lacks, and why."""
    others = [c for c in results.experiment.columns if c.missing and c != results.column]
    sections = []
    if others:
        text = "\n\n".join(f"{column.title}: {column.missing}" for column in others)
        sections.append(Section("Columns not run", text))
    if results.missing:
        text = f"{len(results.missing)} cells are not finished; run the experiment again to go on."
        table = Table(["cell"], [[cell.folder] for cell in results.missing])
        sections.append(Section("Missing cells", text, table))
    return sections


def _settings(results: Results) -> Table:
    """Every recipe in use, by what it changes from the defaults."""
    columns = ["lines", "model", "variant", "recipe", "teacher", "seeds"]
    rows = []
    for label, line in results.outcomes.items():
        cell = line[0].cell
        recipe = ", ".join(f"{key}={value}" for key, value in asdict(cell.recipe).items())
        teacher = ""
        if cell.teacher and cell.distillation:
            teacher = f"{cell.teacher.model}; {cell.distillation}"
        seeds = " ".join(str(outcome.cell.seed) for outcome in line)
        rows.append([label, cell.model, cell.variant, recipe, teacher, seeds])
    return Table(columns, rows)


def machines(sessions: Iterable[Sequence[Mapping[str, Any]]]) -> list[Section]:
    """With which versions and on which machines runs were made; nothing without a session.

    Args:
        sessions: Of each run, those that run.json holds.
    """
    counts: dict[tuple[str, ...], int] = {}
    for one in (one for run in sessions for one in run):
        key = tuple(str(one.get(name)) for name in (*_MACHINE, "device"))
        counts[key] = counts.get(key, 0) + 1
    if not counts:
        return []
    rows = [[*key, str(count)] for key, count in counts.items()]
    return [Section("Runs were made with", "", Table([*_MACHINE, "device", "sessions"], rows))]


def footer() -> str:
    """When and with which version a page was written."""
    here = session()
    return (
        f"Page written {here['started']} by weightfold {here['weightfold']}, commit "
        f"{here['commit']}.\nThe numbers are beside it in results.csv and results.json."
    )
