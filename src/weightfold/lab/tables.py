"""Results as tables and records: ours, the published numbers, and how far they are apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from weightfold.lab.experiment import Estimate, Line, Quantity
from weightfold.lab.printed import Printed
from weightfold.lab.results import Outcome, Results
from weightfold.lab.run import Run
from weightfold.report.numbers import interval, number
from weightfold.report.page import Table

MACHINE = ("weightfold", "commit", "torch", "python", "platform", "cpu", "cpu_count", "threads")


def show(found: Estimate | Printed, measure: Quantity) -> str:
    """A number with its interval or spread; a sign before it marks a bound."""
    digits = measure.digits
    text = f"{found.bound} {number(found.value, digits)}".strip()
    if isinstance(found, Estimate) and found.low is not None:
        return f"{text} {interval(found.low, found.high, digits, within=measure.within)}"
    spread = found.std if isinstance(found, Estimate) else found.spread
    return text if spread is None else f"{text} ± {number(spread, digits)}"


def apart(measure: Quantity, ours: Estimate | None, printed: Printed | None) -> str:
    """Ours against the published number; nothing where one of them is only a bound."""
    if ours is None or printed is None or ours.bound or printed.bound:
        return ""
    if measure.ratio:
        return number(100 * (ours.value / printed.value - 1), 0, unit="%", signed=True)
    return number(ours.value - printed.value, measure.digits, signed=True)


def results_table(results: Results, lines: Sequence[Line], section: str = "") -> Table:
    """A row for each line: ours, published and difference of the measures of a section."""
    columns: list[str] = [""]
    rows = [[line.label] for line in lines]
    ran = [line.label in results.outcomes for line in lines]
    if any(ran) and not section:
        columns.append("seeds")
        for row, line in zip(rows, lines, strict=True):
            row.append(_seeds(results.outcomes.get(line.label, ())))
    ours_only = any(ran)
    for measure in results.experiment.measures:
        if measure.section == section:
            found = _columns(results, lines, measure)
            _add(columns, rows, {} if ours_only and measure.title not in found else found)
        if measure == results.experiment.measures[0] and not section:
            _add(columns, rows, _against_baseline(results, lines))
    if any(line.note for line in lines) and not section:
        _add(columns, rows, {"remarks": [line.note for line in lines]})
    return Table(columns, rows)


def _add(columns: list[str], rows: list[list[str]], new: Mapping[str, Sequence[str]]) -> None:
    for heading, cells in new.items():
        columns.append(heading)
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)


def published_table(results: Results, lines: Sequence[Line]) -> Table | None:
    """What is printed of measures that none of the lines has here; None if there is nothing."""
    columns, rows = [""], [[line.label] for line in lines]
    for measure in results.experiment.measures:
        found = _columns(results, lines, measure)
        if measure.section is not None and measure.title not in found:
            _add(columns, rows, found)
    return Table(columns, rows) if len(columns) > 1 else None


def _columns(results: Results, lines: Sequence[Line], measure: Quantity) -> dict[str, list[str]]:
    """Ours under the measure's title, published and difference, as far as any of the lines has."""
    ours = [results.estimate(line.label, measure.key) for line in lines]
    printed = [results.published(line.label, measure.key) for line in lines]
    found: dict[str, list[str]] = {}
    if any(ours):
        found[measure.title] = [show(one, measure) if one else "" for one in ours]
    if any(printed):
        sources = {one.source for one in printed if one}
        one_source = f" in {sources.pop()}" if len(sources) == 1 else ""
        found[f"{measure.title}, published{one_source}"] = [
            _with_source(one, measure, told=not one_source) if one else "" for one in printed
        ]
    if any(ours) and any(printed) and results.experiment.presets[results.preset].comparable:
        found[f"{measure.title}, difference"] = [
            apart(measure, one, number) for one, number in zip(ours, printed, strict=True)
        ]
    return found


def _with_source(found: Printed, measure: Quantity, *, told: bool = True) -> str:
    text = show(found, measure)
    return f"{text} ({found.source})" if found.source and told else text


def _against_baseline(results: Results, lines: Sequence[Line]) -> dict[str, list[str]]:
    baseline, measure = results.experiment.baseline, results.experiment.measures[0]
    if not baseline:
        return {}
    found = [
        None if line.label == baseline else results.difference(line.label, baseline, measure.key)
        for line in lines
    ]
    if not any(found):
        return {}
    digits = measure.digits
    return {
        f"minus {baseline}": [number(d.mean, digits, signed=True) if d else "" for d in found],
        "its 95% interval": [
            interval(d.low, d.high, digits, signed=True) if d else "" for d in found
        ],
    }


def _seeds(outcomes: Sequence[Outcome]) -> str:
    """Finished of all."""
    counts = [_count(outcome.run) for outcome in outcomes]
    done = [c for c, o in zip(counts, outcomes, strict=True) if o.record is not None or o.counted]
    return f"{sum(done)}/{sum(counts)}" if outcomes else ""


def _count(run: Run) -> int:
    seeds = getattr(run, "seeds", 1)
    return seeds if isinstance(seeds, int) else len(seeds)


def not_run_table(results: Results, lines: Sequence[Line]) -> Table:
    """Lines without runs: what the paper prints, and why they have none."""
    rows = []
    for line in lines:
        printed = [
            f"{measure.title}: {_with_source(found, measure)}"
            for measure in results.experiment.measures
            if (found := line.published.get(measure.key))
        ]
        rows.append([line.label, "\n".join(printed), line.not_run])
    return Table(["", "published", "why"], rows)


def records(results: Results) -> Iterator[dict[str, Any]]:
    """For results.csv, a record for each line and measure."""
    for line in results.experiment.lines:
        for measure in results.experiment.measures:
            ours = results.estimate(line.label, measure.key)
            printed = results.published(line.label, measure.key)
            if ours is None and printed is None:
                continue
            values = results.values(line.label, measure.key)
            known = asdict(ours) if ours else dict.fromkeys(f.name for f in fields(Estimate))
            yield {
                "line": line.label,
                "measure": measure.key,
                **known,
                "published_value": printed and printed.value,
                "published_spread": printed and printed.spread,
                "published_bound": printed and printed.bound,
                "published_source": printed and printed.source,
                "difference": ours.value - printed.value if ours and printed else None,
                "seeds": " ".join(map(str, values)),
                "values": " ".join(f"{value:.6g}" for value in values.values()),
                "not_run": line.not_run,
            }


def run_records(results: Results) -> list[dict[str, Any]]:
    """For runs.csv, a record for each finished run that has values of its own."""
    found = []
    for label, outcomes in results.outcomes.items():
        for outcome in outcomes:
            row: dict[str, Any] = {"line": label, "seed": outcome.seed}
            for measure in results.experiment.measures:
                if measure.of is not None and outcome.record is not None:
                    row[measure.key] = measure.of(outcome.record)
            found += [row] if len(row) > 2 else []
    return found


def settings_table(results: Results) -> Table:
    """What the runs of each line are, lines of the same settings in one row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for label, outcomes in results.outcomes.items():
        run = outcomes[0].run
        recipe = getattr(run, "recipe", None)
        seeds = " ".join(str(o.seed) for o in outcomes if hasattr(o.run, "seed"))
        key = (_told(run), _told(recipe) if recipe else "", seeds or str(_count(run)))
        rows.setdefault(key, []).append(label)
    columns = ["lines", "settings", "recipe", "seeds"]
    return Table(columns, [["; ".join(labels), *key] for key, labels in rows.items()])


def _told(value: Any) -> str:
    """The fields of a dataclass that are not their defaults; of a run without recipe and seeds."""
    left_out = ("recipe", "seed", "seeds") if isinstance(value, Run) else ()
    parts = []
    for field in fields(value):
        found = getattr(value, field.name)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if field.name not in left_out and field.compare and found not in (default, "", None):
            parts.append(f"{field.name}={_text(found)}")
    return ", ".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, Run):
        return f"({value.title})"
    if is_dataclass(value) and not isinstance(value, type):
        return f"({_told(value)})" if type(value).__str__ is object.__str__ else str(value)
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return str(value)


def machines_table(results: Results) -> Table | None:
    """With which versions and on which machines runs were made; None without a session."""
    counts: dict[tuple[str, ...], int] = {}
    for outcome in (o for line in results.outcomes.values() for o in line):
        for session in outcome.sessions:
            key = tuple(str(session.get(name)) for name in (*MACHINE, "device"))
            counts[key] = counts.get(key, 0) + 1
    rows = [[*key, str(count)] for key, count in counts.items()]
    return Table([*MACHINE, "device", "sessions"], rows) if rows else None
