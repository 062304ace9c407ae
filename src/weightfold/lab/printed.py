"""Numbers that a paper prints, read from a TOML file. Imports no torch.

A file has a table for each table or figure of the paper, below it one for each row, and in that the
cells: `cell = { value = 78.63, spread = 0.41 }`. `bound = ">"` marks a number that is only said to
lie above `value`, `unused = "why"` one that no line or claim refers to.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

Bound = Literal["", ">", "<"]
"""What a number is a bound of: "" if it is the value itself."""

_FIELDS = {"value", "spread", "bound", "unused"}


@dataclass(frozen=True)
class Printed:
    """A published number, in the unit of the measure it stands beside.

    Attributes:
        value: As printed, or worked out from printed numbers.
        spread: Standard deviation; None if not printed.
        bound: ">": the value is above `value`; "<": below.
        source: Where it is printed, "Table 1".
        cells: The printed numbers that it is or is worked out from, "guo2020, Table 1, FC, CIFAR".
    """

    value: float
    spread: float | None = None
    bound: Bound = ""
    source: str = ""
    cells: tuple[str, ...] = ()

    def times(self, factor: float) -> "Printed":
        """The same in another unit, rounded to ten digits after the decimal point."""
        spread = None if self.spread is None else round(factor * self.spread, 10)
        return replace(self, value=round(factor * self.value, 10), spread=spread)

    def over(self, other: "Printed") -> "Printed":
        """The ratio of two printed numbers, without a spread."""
        cells = (*self.cells, *other.cells)
        return Printed(self.value / other.value, source=self.source, cells=cells)


def mean_of(numbers: Sequence[Printed]) -> Printed:
    """The mean of printed numbers, without a spread."""
    cells = tuple(cell for number in numbers for cell in number.cells)
    value = fmean(number.value for number in numbers)
    return Printed(value, source=numbers[0].source, cells=cells)


@dataclass(frozen=True)
class Paper:
    """The numbers of one paper.

    Attributes:
        name: "guo2020".
        tables: Table or figure -> row -> cell -> number.
        unused: Of the numbers that nothing refers to, why.
    """

    name: str
    tables: Mapping[str, Mapping[str, Mapping[str, Printed]]]
    unused: Mapping[str, str]

    def rows(self, table: str) -> Mapping[str, Mapping[str, Printed]]:
        """The rows of a table.

        Raises:
            KeyError: There is no such table.
        """
        return _found(self.tables, table, f"{self.name}.toml has no")

    def row(self, table: str, row: str) -> Mapping[str, Printed]:
        """The cells of a row.

        Raises:
            KeyError: There is no such row.
        """
        return _found(self.rows(table), row, f"{self.name}.toml, {table}, has no row")

    def cell(self, table: str, row: str, cell: str) -> Printed:
        """One number.

        Raises:
            KeyError: There is no such cell.
        """
        return _found(self.row(table, row), cell, f"{self.name}.toml, {table}, {row}, has no cell")

    @property
    def cells(self) -> set[str]:
        """All numbers, as in `Printed.cells`."""
        return {
            name
            for rows in self.tables.values()
            for cells in rows.values()
            for number in cells.values()
            for name in number.cells
        }


def read_paper(path: Path) -> Paper:
    """The printed numbers of a TOML file.

    Raises:
        ValueError: A cell is none of numbers, or a field of it is unknown.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    tables: dict[str, dict[str, dict[str, Printed]]] = {}
    unused = {}
    for table, rows in content.items():
        for row, cells in rows.items():
            for cell, entry in cells.items():
                name = f"{path.stem}, {table}, {row}, {cell}"
                _check(name, entry)
                if "unused" in entry:
                    unused[name] = entry["unused"]
                number = Printed(
                    entry["value"], entry.get("spread"), entry.get("bound", ""), table, (name,)
                )
                tables.setdefault(table, {}).setdefault(row, {})[cell] = number
    return Paper(path.stem, tables, unused)


def _check(name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or "value" not in entry or entry.keys() - _FIELDS:
        raise ValueError(f"{name}: {entry!r} is no number; write {{ value = 1.0, spread = 0.1 }}")
    if entry.get("bound", "") not in ("", ">", "<"):
        raise ValueError(f"{name}: bound={entry['bound']!r}; write '>' or '<'")


def _found(there: Mapping[str, Any], name: str, missing: str) -> Any:
    if name not in there:
        raise KeyError(f"{missing} {name!r}; there are {', '.join(there)}")
    return there[name]
