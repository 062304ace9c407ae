"""`weightfold report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Report:
    """Write the pages of experiments again from the runs in their folder; trains nothing."""

    folder: tyro.conf.Positional[Path]
    """Folder that was given to 'weightfold experiment run'."""

    runs: Path | None = None
    """Folder of the trained networks; none: runs/ in the folder."""

    def run(self) -> None:
        """Write them."""
        from weightfold.lab.experiment import report

        report(self.folder, runs=self.runs)
