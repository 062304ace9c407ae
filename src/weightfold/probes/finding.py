"""What every probe returns: an answer with its uncertainty, as words, numbers and a picture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict, TypeVar

from weightfold import records
from weightfold.codec import decode, encode
from weightfold.files import write_csv
from weightfold.records import SEAL, write_record
from weightfold.report.page import Section, Table, write_page

RESULT = "result.json"


class Recorded(TypedDict):
    """What result.json holds of every probe."""

    probe: str
    notes: list[str]
    sessions: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Finding(ABC):
    """What a probe found.

    A subclass is a frozen dataclass whose fields are the result, as `weightfold.codec` takes them;
    those that do not belong in the record have the metadata
    `weightfold.records.UNRECORDED`.

    Attributes:
        probe: Name of the probe, "intrinsic-dimension".
        answers: Properties that stand in the record beside the fields.
        per_seed: Fields that have a part for each seed, where seeds do not depend on each other:
            tuples, or counts. See `joined`.
        former: Names that fields had in records of earlier versions -> their names now.
        notes: What a reader must know to judge the numbers: policies, runs left out and why,
            bounds in place of values. Printed with every figure.
        sessions: When, with which versions and on which machine it was measured, from
            `weightfold.train.record.session`.
    """

    probe: ClassVar[str]
    answers: ClassVar[tuple[str, ...]] = ()
    per_seed: ClassVar[tuple[str, ...]] = ()
    former: ClassVar[Mapping[str, str]] = {}
    notes: tuple[str, ...] = ()
    sessions: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def doubt(self) -> str:
        """Why the answer means little, a sentence that `headline` begins with; "" if it does not.

        Such as a network that did not learn, or a control that does better.
        """
        return ""

    @property
    @abstractmethod
    def headline(self) -> str:
        """The answer and its uncertainty, in a sentence or two for a reader who is no expert."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What the measured quantity is and what the answer suggests, in two or three sentences."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The measurements behind the answer, a dict a line of the CSV file."""

    @abstractmethod
    def draw(self, path: Path) -> None:
        """Write the figure, a PNG file; `notes` that decide the outcome stand on it."""

    def record(self) -> dict[str, Any]:
        """All fields and the `answers` as JSON values."""
        return encode(self) | {name: encode(getattr(self, name)) for name in self.answers}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The finding that `record` is of; its answers are computed again.

        Raises:
            ValueError: A field is missing, unknown or of another type; the message names it.
        """
        own = {k: v for k, v in record.items() if k not in ("probe", SEAL, *cls.answers)}
        return decode(renamed(own, cls.former), cls)

    def table(self) -> Table | None:
        """A short table for the page; None for none."""
        return None

    def beside(self, published: float) -> Self:
        """The finding as it stands beside a published value; the same if it shows none."""
        return self

    def section(self, folder: Path, title: str) -> Section:
        """The finding as a part of a page; draws its figure into `folder`."""
        image = folder / f"{self.probe}.png"
        self.draw(image)
        text = "\n\n".join([self.headline, self.meaning, *self.notes])
        return Section(title, text, self.table(), image)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """JSON values with other names, at whatever depth."""
    if isinstance(value, Mapping):
        return {names.get(key, key): renamed(inner, names) for key, inner in value.items()}
    return [renamed(inner, names) for inner in value] if isinstance(value, list) else value


F = TypeVar("F", bound=Finding)


def joined(findings: Mapping[Any, F]) -> F:
    """The finding of several seeds from those of each, of a probe that has `per_seed`.

    What is not recorded is left out. A note that is not of all seeds says of which it is.

    Args:
        findings: Seed -> what was found, of otherwise equal calls; one alone is given back.
    """
    first, *others = findings.values()
    if not others:
        return first
    changes: dict[str, Any] = {
        f.name: f.default_factory()  # type: ignore[misc]
        for f in fields(first)
        if not f.metadata.get("recorded", True)
    }
    for name in first.per_seed:
        changes[name] = sum((getattr(other, name) for other in others), start=getattr(first, name))
    notes = []
    for seed, one in findings.items():
        for note in one.notes:
            of_all = all(note in other.notes for other in findings.values())
            notes.append(note if of_all else f"Seed {seed}: {note}")
    sessions = tuple(session for one in findings.values() for session in one.sessions)
    return replace(first, notes=tuple(dict.fromkeys(notes)), sessions=sessions, **changes)


def write_finding(finding: Finding, folder: Path, *, title: str) -> Path:
    """Write result.json, results.csv, the figure and index.html.

    Args:
        finding: What was found.
        folder: Made if missing.
        title: Of the page.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = finding.rows()
    if rows:
        write_csv(folder / "results.csv", rows)
    page = folder / "index.html"
    write_page(
        page, title, [finding.section(folder, finding.probe)], footer=footer(finding.sessions)
    )
    write_record(folder / RESULT, {"probe": finding.probe, **finding.record()})
    return page


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `write_finding` recorded in a folder; None if it holds nothing.

    Raises:
        ValueError: It is damaged or was changed.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    record = records.read_record(path, Recorded)
    return {key: value for key, value in record.items() if key != records.SEAL}


def footer(sessions: Sequence[Mapping[str, Any]]) -> str:
    """Where it was measured, a line a session."""
    return "\n".join(
        f"{s['started']}, weightfold {s['weightfold']}, commit {s['commit']}, torch {s['torch']}, "
        f"{s['device']}, {s['cpu']}, {s['threads']} threads"
        for s in sessions
    )
