"""`weightfold report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Report:
    """Write the pages of experiments again; trains nothing.

    What runs came to is read from their folders, or, where those are gone, from results.json.
    """

    folder: tyro.conf.Positional[Path]
    """Folder that was given to 'weightfold experiment run'."""

    runs: Path | None = None
    """Folder of the trained networks; none: runs/ in the folder."""

    def run(self) -> None:
        """Write them."""
        from weightfold.lab.running import report
        from weightfold.papers import experiments

        for page in report(self.folder, experiments(), runs=self.runs):
            print(page)
