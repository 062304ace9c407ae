"""`weightfold charts`."""

import ast
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Charts:
    """List the charts, one or more for each folder of weightfold/methods."""

    def run(self) -> None:
        """Print them."""
        for kind, line in chart_lines().items():
            print(f"{kind:<10}  {line}")


def chart_lines() -> dict[str, str]:
    """Kind -> first line of the docstring of each chart, read from the sources without torch."""
    found = {}
    for path in sorted((Path(__file__).parents[1] / "methods").glob("*/chart.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (kind := _kind(node)):
                found[kind] = (ast.get_docstring(node) or "").partition("\n")[0]
    return found


def _kind(node: ast.ClassDef) -> str | None:
    """The string assigned to `kind` in the class."""
    for item in node.body:
        match item:
            case ast.Assign(targets=[ast.Name(id="kind")], value=ast.Constant(value=str(kind))):
                return kind
    return None
