"""results.json read back: records and numbers of runs whose folders are gone."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from weightfold.lab.experiment import Estimate
from weightfold.lab.run import Run
from weightfold.lab.verdicts import Comparison, Judged, Verdict
from weightfold.records import read_record
from weightfold.report.page import Section, Table

RESULTS = "results.json"
_JUDGED: Mapping[str, Judged] = {"unclear": "undecided"}
"""What verdicts were called before."""


class Asked(TypedDict):
    """What an experiment's page was made of."""

    name: str
    preset: str
    seeds: int | None
    data: str | None


class Entry(TypedDict):
    """A run of a page; `history` was its record before."""

    line: str
    folder: str
    finished: NotRequired[bool]
    sessions: NotRequired[list[dict[str, Any]]]
    settings: NotRequired[dict[str, Any]]
    history: NotRequired[dict[str, Any] | None]


class Number(TypedDict, total=False):
    """A line's number; `mean` was its value before."""

    line: str
    measure: str
    value: float | None
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    n: int | None
    bound: str | None


class Judgement(TypedDict, total=False):
    """A claim; before, with what it came to in words alone."""

    text: str
    comparisons: list[Comparison]
    holds: Literal["holds", "undecided", "unclear", "does not hold", "not run"]
    numbers: str


class Detail(TypedDict):
    """What a page says of a line, and its table, if it has columns."""

    text: str
    columns: list[str]
    rows: list[list[str]]


class Page(TypedDict):
    """What is read of every results.json."""

    asked: Asked
    runs: NotRequired[list[Entry]]
    cells: NotRequired[list[Entry]]
    results: NotRequired[list[Number]]
    claims: NotRequired[list[Judgement]]
    details: NotRequired[dict[str, Detail]]


@dataclass(frozen=True)
class KeptRun:
    """A run as results.json has it.

    Attributes:
        finished: Whether it came to its end.
        record: Its record as JSON values; None if only its line's numbers were kept.
        sessions: When, with which versions and where it ran.
        settings: What defined it.
    """

    finished: bool
    record: Any
    sessions: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """What a results.json has.

    Attributes:
        path: Of the file.
        asked: What the page was asked for with.
        runs: (line, name of the run's folder without its hash) -> the run.
        estimates: (line, measure) -> ours.
        verdicts: Claim -> what it came to.
        pruned: (line, seed) -> the run, of the version before's pruning experiment.
        details: Line -> what the page says of it.
    """

    path: Path
    asked: Mapping[str, Any]
    runs: Mapping[tuple[str, str], KeptRun]
    estimates: Mapping[tuple[str, str], Estimate] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    pruned: Mapping[tuple[str, int], KeptRun] = field(default_factory=dict)
    details: Mapping[str, Section] = field(default_factory=dict)

    def run(self, label: str, run: Run) -> KeptRun | None:
        """The run of a line of that name, if no setting that both tell of differs.

        Hashes are not compared: they are of how settings were written then.
        """
        found = self.runs.get((label, _readable(run.folder)))
        if found is not None and not _alike(found.settings, run.settings):
            return None
        return found or self.pruned.get((label, getattr(run, "seed", 0)))


def read_kept(path: Path) -> Kept:
    """What an experiment's results.json has, of this version or of the one before.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or no results.json.
    """
    content = read_record(path, Page)
    try:
        return _kept(content, path)
    except KeyError as error:
        raise ValueError(f"{path} is damaged: an entry lacks {error}") from error


def _kept(content: Mapping[str, Any], path: Path) -> Kept:
    entries = content.get("runs", content.get("cells", []))
    runs = {(e["line"], _readable(e["folder"])): _run(e) for e in entries}
    rows = content.get("results", [])
    estimates = {(r["line"], r["measure"]): _estimate(r) for r in rows if _has_value(r)}
    verdicts = {c["text"]: _verdict(c) for c in content.get("claims", []) if "text" in c}
    pruned = {} if entries else _pruned(path.with_name("results.csv"))
    details = (
        {
            label: _section(label, one["text"], one["columns"], one["rows"])
            for label, one in content["details"].items()
        }
        if "details" in content
        else _sections(path.with_name("index.html"))
    )
    return Kept(path, content["asked"], runs, estimates, verdicts, pruned, details)


def _readable(folder: str) -> str:
    return folder.rpartition("_")[0]


_NO_SETTINGS = ("line", "folder", "history", "sessions", "finished", "probe")
"""Of a run of the version before, whose probes were specs with options."""


def _run(entry: Mapping[str, Any]) -> KeptRun:
    record = entry.get("record", entry.get("history"))
    finished = entry.get("finished", record is not None)
    before = {key: value for key, value in entry.items() if key not in _NO_SETTINGS}
    sessions = tuple(entry.get("sessions", ()))
    return KeptRun(finished, record, sessions, entry.get("settings", before))


def _alike(there: Any, here: Any) -> bool:
    """Whether values agree, mappings in what both have."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        return all(_alike(there[key], here[key]) for key in there.keys() & here.keys())
    if isinstance(there, list) and isinstance(here, list):
        pairs = zip(there, here, strict=False)
        return len(there) == len(here) and all(_alike(a, b) for a, b in pairs)
    return there == here


def _has_value(row: Mapping[str, Any]) -> bool:
    return "measure" in row and row.get("value", row.get("mean")) is not None


def _estimate(row: Mapping[str, Any]) -> Estimate:
    return Estimate(
        row.get("value", row.get("mean")),
        row.get("std"),
        row.get("low"),
        row.get("high"),
        row["n"],
        row.get("bound") or "",
    )


def _verdict(claim: Mapping[str, Any]) -> Verdict:
    if "comparisons" in claim:
        together = claim.get("together")
        return Verdict(
            tuple(Comparison(**one) for one in claim["comparisons"]),
            Comparison(**together) if together else None,
        )
    holds = claim["holds"]
    judged = None if holds == "not run" else _JUDGED.get(holds, holds)
    return Verdict((Comparison(judged, claim["numbers"]),))


def _section(title: str, text: str, columns: list[str], rows: list[list[str]]) -> Section:
    return Section(title, text, Table(columns, rows) if columns else None)


def _sections(page: Path) -> dict[str, Section]:
    """Heading -> what stands below it on a page that the version before wrote."""
    if not page.exists():
        return {}
    found = {}
    for title, body in re.findall(r"<h2>(.*?)</h2>(.*?)</section>", page.read_text("utf-8"), re.S):
        lines = [
            _texts(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
            for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
        ]
        text = "\n\n".join(_texts(r"<p>(.*?)</p>", body))
        found[unescape(title)] = _section(
            unescape(title), text, lines[0] if lines else [], lines[1:]
        )
    return found


def _texts(pattern: str, markup: str) -> list[str]:
    return [unescape(text) for text in re.findall(pattern, markup, re.S)]


def _pruned(path: Path) -> dict[tuple[str, int], KeptRun]:
    """The runs of the pruning experiment of the version before, which wrote them as CSV alone."""
    found: dict[tuple[str, int], KeptRun] = {}
    if not path.exists():
        return found
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        key = (row.pop("backbone"), int(row.pop("seed")))
        kept = found.setdefault(key, KeptRun(True, [], ()))
        texts = ("domain", "layer", "unit")
        numbers = {k: float(v) for k, v in row.items() if k not in (*texts, "depthwise")}
        numbers["filters"] = int(numbers["filters"])
        told = {k: row[k] for k in texts} | {"depthwise": row["depthwise"] == "True"}
        kept.record.append(told | numbers)
    return found
