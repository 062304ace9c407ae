"""What an experiment leaves in its folder: CSV, JSON, figures and one page, the answer first."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from weightfold.files import write_csv
from weightfold.lab import figures
from weightfold.lab.kept import RESULTS
from weightfold.lab.results import Results
from weightfold.lab.run import slug
from weightfold.lab.tables import (
    machines_table,
    not_run_table,
    published_table,
    records,
    results_table,
    run_records,
    settings_table,
)
from weightfold.lab.verdicts import MEANING, Verdict
from weightfold.probes.finding import Finding
from weightfold.records import write_record
from weightfold.report.figures import erase
from weightfold.report.numbers import count, number
from weightfold.report.page import Section, Table, write_page
from weightfold.report.statistics import holm
from weightfold.train.record import session

LINES = "lines"
"""Folder of each line's figure and measurements, where lines have findings."""

CLEAR = 0.05
"""A corrected p below this leaves a claim standing."""

_COMPARED = (
    "Ours: mean ± sample standard deviation over seeds, or the estimate with its 95% interval; a "
    "sign > or < marks a bound: the value lies beyond what was tried. Difference: ours against the "
    "published number."
)


def write_results(results: Results, folder: Path, *, asked: Mapping[str, Any]) -> Path:
    """Write results.csv, runs.csv, claims.csv, results.json, the figures and index.html.

    Args:
        results: Finished or not.
        folder: Made if missing.
        asked: What the page was asked for with, as JSON values; goes into results.json.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    experiment = results.experiment
    verdicts = judge_claims(results)
    rows = list(records(results))
    write_csv(folder / "results.csv", rows)
    if claimed := list(_claim_records(verdicts)):
        write_csv(folder / "claims.csv", claimed)
    if runs := run_records(results):
        write_csv(folder / "runs.csv", runs)
    write_record(folder / RESULTS, _as_json(results, rows, verdicts, asked))
    sections = [
        experiment.answer(results) if experiment.answer else _answer(results, verdicts),
        *_results(results, folder),
        *_figures(results, folder),
        *(experiment.sections(results, folder) if experiment.sections else ()),
        *_details(results, folder / LINES),
        *_left_out(results),
        Section("Settings", "", settings_table(results)),
        *_derived(results),
    ]
    if machines := machines_table(results):
        sections.append(Section("Runs were made with", "", machines))
    title = ": ".join(filter(None, (experiment.name, experiment.title)))
    write_page(folder / "index.html", title, sections, footer=footer())
    return folder / "index.html"


def judge_claims(results: Results) -> dict[str, Verdict]:
    """Claim -> what it came to; as it was kept where records are gone."""
    found = {}
    for claim in results.experiment.claims:
        verdict = claim.check(results)
        if results.kept and not results.complete:
            verdict = _with_kept(verdict, results.kept.verdicts.get(claim.text), results.gone)
        found[claim.text] = verdict
    return found


def _with_kept(verdict: Verdict, kept: Verdict | None, gone: Collection[str]) -> Verdict:
    """With what was kept of a claim's comparisons over lines whose records are gone."""
    lost = [c for c in verdict.comparisons
            if c.judged is None and c.text.removesuffix(": not run") in gone]  # fmt: skip
    if kept is None or kept.judged is None or (verdict.judged and not lost):
        return verdict
    if not verdict.judged and (len(verdict.comparisons) == 1 or len(kept.comparisons) > 1):
        return kept
    told = {c.text for c in verdict.ran}
    before = [c for c in kept.ran if c.text not in told]
    rest = [c for c in verdict.comparisons if c not in lost]
    return replace(kept, comparisons=(*before, *rest))


def corrected(verdicts: Mapping[str, Verdict]) -> dict[str, float]:
    """Claim -> its p by Holm's correction for all claims that have one."""
    known = {text: verdict.p for text, verdict in verdicts.items() if verdict.p is not None}
    return dict(zip(known, holm(list(known.values())), strict=True)) if known else {}


def _answer(results: Results, verdicts: Mapping[str, Verdict]) -> Section:
    """What the claims came to, in a sentence and a table."""
    if not verdicts:
        return Section("In short", _finished(results))
    counts = Counter(verdict.judged for verdict in verdicts.values())
    partly = sum(0 < len(v.ran) < len(v.comparisons) for v in verdicts.values())
    text = (
        f"Of {count(len(verdicts), 'claim')}: {counts['holds']} hold, {counts['does not hold']} do "
        f"not hold, {counts['undecided']} undecided, {counts[None]} not run"
    )
    text += f"; {partly} by a part of their comparisons." if partly else "."
    holms = corrected(verdicts)
    if len(holms) > 1:
        stand = sum(verdicts[claim].judged == "holds" and p < CLEAR for claim, p in holms.items())
        text += (
            f" Of {len(holms)} with a p value, judged at once, {stand} hold by Holm's correction "
            "as well."
        )
    columns = ["claim", "verdict", *(["p, Holm"] if holms else []), "numbers"]
    rows = [
        [claim, v.text, *([_p(holms.get(claim))] if holms else []), v.numbers]
        for claim, v in verdicts.items()
    ]
    return Section("In short", f"{text}\n\n{_finished(results)}", Table(columns, rows))


def _finished(results: Results) -> str:
    every = sum(map(len, results.outcomes.values()))
    done = every - len(results.missing)
    preset = f"Preset {results.preset}: " if len(results.experiment.presets) > 1 else ""
    return f"{preset}{done} of {every} runs are finished." if every else ""


def _p(value: float | None) -> str:
    return "" if value is None else number(value, 3) if value >= 0.001 else "< 0.001"


def _results(results: Results, folder: Path) -> Iterator[Section]:
    """The table of what was run with its figure, and the further tables."""
    experiment = results.experiment
    if not experiment.measures:
        return
    lines = [line for line in experiment.lines if line.label in results.outcomes]
    figure = _draw(results, folder / "figure.png")
    yield Section("Results", _introduction(results), results_table(results, lines), figure)
    if experiment.measures and (elsewhere := published_table(results, lines)):
        yield Section("Printed of what is not measured here", "", elsewhere)
    headings = dict.fromkeys(m.section for m in experiment.measures if m.section)
    for heading in headings:
        table = results_table(results, lines, heading)
        if len(table.columns) > 1:
            yield Section(heading, "", table)


def _introduction(results: Results) -> str:
    experiment, size = results.experiment, results.experiment.presets[results.preset]
    parts = [f"{experiment.paper}." if experiment.paper else ""]
    if any(line.printed for line in experiment.lines):
        parts.append(_COMPARED)
        if not size.comparable:
            parts.append("The data are others than the paper's: compare the order of the lines.")
        parts.append(_of_other_data(results))
    return "\n\n".join(filter(None, (*parts, experiment.notes)))


def _of_other_data(results: Results) -> str:
    """Says so if the published numbers are for another data set than was used."""
    column = results.column
    data = {str(getattr(o.run, "data", "")) for line in results.outcomes.values() for o in line}
    if not column.name or any(spec.partition(",")[0] == column.name for spec in data):
        return ""
    return f"The published numbers are for {column.title}: they are not comparable."


def _draw(results: Results, path: Path) -> Path | None:
    """The figure beside the table, once there is something to draw."""
    experiment = results.experiment
    if experiment.draw is None:
        erase(path)
        draw = figures.along_axis if experiment.axis else figures.dots
        return path if draw(results, path) else None
    return path if _draw_records(experiment.draw, results, path) else None


def _draw_records(draw: Callable[[Results, Path], Any], results: Results, path: Path) -> bool:
    """Draw what is in records; a figure of records that are gone stays as it is."""
    if not results.complete and path.exists():
        return True
    erase(path)
    return any(map(results.records, results.outcomes)) and draw(results, path) is not False


def _figures(results: Results, folder: Path) -> Iterator[Section]:
    curves = folder / "curves.png"
    if _draw_records(figures.curves, results, curves):
        yield Section("Learning curves", "", None, curves)
    for figure in results.experiment.figures:
        path = folder / f"{figure.name}.png"
        if _draw_records(figure.draw, results, path):
            yield Section(figure.title, figure.text, None, path)


def _details(results: Results, folder: Path) -> Iterator[Section]:
    """Each line's figure, headline, notes and table; what a probe means where it comes first."""
    explained: set[str] = set()
    measures = results.experiment.measures
    for label in results.outcomes if measures else ():
        image = folder / f"{slug(label, '-.')}.png"
        if label in results.gone:
            kept = results.kept.details.get(label) if results.kept else None
            kept = replace(kept or Section(label), image=image if image.exists() else None)
            yield from [kept] if kept.text or kept.image else []
        for finding in results.records(label):
            if not isinstance(finding, Finding):
                continue
            printed = results.published(label, measures[0].key)
            if printed and not printed.bound:
                finding = finding.beside(printed.value)
            image.parent.mkdir(parents=True, exist_ok=True)
            finding.draw(image)
            if rows := finding.rows():
                write_csv(image.with_suffix(".csv"), rows)
            meaning = [] if finding.probe in explained else [finding.meaning]
            explained.add(finding.probe)
            text = "\n\n".join([finding.headline, *meaning, *finding.notes])
            yield Section(label, text, finding.table(), image)


def _left_out(results: Results) -> Iterable[Section]:
    """How this differs from the paper, and what the table lacks, with the reasons."""
    experiment, size = results.experiment, results.experiment.presets[results.preset]
    sections = [Section("How this differs from the paper", size.differs)] if size.differs else []
    if experiment.claims:
        sections.append(Section("How claims are judged", MEANING))
    without = [line for line in experiment.lines if line.not_run]
    if without:
        sections.append(Section("Not run", "", not_run_table(results, without)))
    rest = [x for x in experiment.lines if x not in without and x.label not in results.outcomes]
    if rest:
        sections.append(Section("Lines not in this preset", "", results_table(results, rest)))
    others = [c for c in experiment.columns if c.missing and c != results.column]
    if others:
        text = "\n\n".join(f"{column.title}: {column.missing}" for column in others)
        sections.append(Section("Columns not run", text))
    if results.missing:
        text = f"{len(results.missing)} runs are not finished; run the experiment again to go on."
        table = Table(["run"], [[run.folder] for run in results.missing])
        sections.append(Section("Missing runs", text, table))
    return sections


def _derived(results: Results) -> Iterator[Section]:
    """What follows from the settings of each line."""
    derived = {label: run.derived for label in results.outcomes if (run := results.run_of(label))}
    columns = list(dict.fromkeys(name for found in derived.values() for name in found))
    if columns:
        headings = ["", *(name.replace("_", " ") for name in columns)]
        rows = [
            [label, *(_cell(of.get(c)) for c in columns)] for label, of in derived.items() if of
        ]
        yield Section("What the settings come to", "", Table(headings, rows))


def _cell(value: Any) -> str:
    return "" if value is None else number(value, 0) if isinstance(value, int) else str(value)


def _claim_records(verdicts: Mapping[str, Verdict]) -> Iterator[dict[str, Any]]:
    """For claims.csv, a record for each comparison of each claim."""
    holms = corrected(verdicts)
    for claim, verdict in verdicts.items():
        for one in filter(None, (*verdict.comparisons, verdict.together)):
            yield {
                "claim": claim,
                "verdict": verdict.text,
                "p_holm": holms.get(claim),
                "comparison": one.text,
                "judged": one.judged or ("not run" if one is not verdict.together else ""),
                "p": one.p,
                **one.counts,
            }


def _as_json(
    results: Results,
    rows: list[dict[str, Any]],
    verdicts: Mapping[str, Verdict],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything the page is written from, so that it can be written again without the runs."""
    holms = corrected(verdicts)
    return {
        "asked": dict(asked),
        "paper": results.experiment.paper,
        "column": results.column.name,
        "results": rows,
        "claims": [
            {
                "text": text,
                "verdict": verdict.text,
                "p_holm": holms.get(text),
                "comparisons": [asdict(one) for one in verdict.comparisons],
                "together": None if verdict.together is None else asdict(verdict.together),
            }
            for text, verdict in verdicts.items()
        ],
        "lines": {
            label: run.derived for label in results.outcomes if (run := results.run_of(label))
        },
        "details": _kept_details(results),
        "runs": [
            {
                "line": label,
                "folder": outcome.run.folder,
                "settings": outcome.run.settings,
                "finished": outcome.record is not None or outcome.counted,
                "record": None if outcome.record is None else outcome.run.to_json(outcome.record),
                "sessions": list(outcome.sessions),
            }
            for label, line in results.outcomes.items()
            for outcome in line
        ],
        "written": session(),
    }


def _kept_details(results: Results) -> dict[str, Any]:
    """What an earlier page says of lines whose records are gone."""
    found = results.kept.details if results.kept else {}
    return {
        label: {
            "text": found[label].text,
            "columns": table.columns if (table := found[label].table) else [],
            "rows": table.rows if table else [],
        }
        for label in results.gone & found.keys()
    }


def footer() -> str:
    """When and with which version a page was written."""
    here = session()
    return (
        f"Page written {here['started']} by weightfold {here['weightfold']}, commit "
        f"{here['commit']}.\nThe numbers are beside it in results.csv and results.json."
    )
