"""Rows of a benchmark: figures beside what they were meant to be."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from weightfold.files import write_json
from weightfold.train.record import session


@dataclass(frozen=True)
class Measured:
    """A row of the benchmark.

    Attributes:
        what: What was measured.
        value: The figure.
        unit: "x" for a ratio of two things timed in turn, else "ms", "bytes" or "bits".
        aim: What it should be at most; at least, if `higher`.
        higher: Whether more is better.
        note: What lies behind it.
    """

    what: str
    value: float
    unit: str
    aim: float | None
    higher: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim was reached; None without one."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.higher else self.value <= self.aim


def show(
    rows: Sequence[Measured], console: Console, about: str, *, repeats: int, folder: Path | None
) -> None:
    """Print the rows and where they were measured; with `folder`, write bench.json there."""
    console.print(as_table(rows))
    console.print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {about}, medians of "
        f"{repeats} alternating rounds"
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        written = {**session(), "threads": torch.get_num_threads(), "repeats": repeats}
        results = [asdict(row) for row in rows]
        write_json(folder / "bench.json", {"session": written, "results": results})


def as_table(rows: Sequence[Measured]) -> Table:
    """Figure, aim and what lies behind it."""
    table = Table("what", "measured", "aim", "", "note", box=SIMPLE)
    for row in rows:
        aim = "" if row.aim is None else f"{'>=' if row.higher else '<='} {row.aim:g} {row.unit}"
        verdict = {True: "met", False: "missed", None: ""}[row.met]
        table.add_row(row.what, f"{row.value:.3g} {row.unit}", aim, verdict, row.note)
    return table
