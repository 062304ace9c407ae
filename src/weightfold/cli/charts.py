"""`weightfold charts`."""

from dataclasses import dataclass

from weightfold.cli.scan import chart_lines


@dataclass(frozen=True)
class Charts:
    """List the charts, one or more for each folder of weightfold/methods."""

    def run(self) -> None:
        """Print them."""
        for kind, line in chart_lines().items():
            print(f"{kind:<10}  {line}")
