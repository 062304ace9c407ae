"""`weightfold bench`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Bench:
    """Measure training steps: compact, expanded and folded on the fly, and as a chain of layers.

    Prints, for each network, estimated and measured ratios of step times, the medians of steps
    taken in turn.
    """

    what: tyro.conf.Positional[Literal["expand"]]
    """The benchmark."""

    threads: int = os.cpu_count() or 1
    """Threads of torch."""

    repeats: int = 15
    """Timed steps of each network."""

    chain: bool = True
    """Also run the chains of layers, which takes most of the time."""

    folder: Path | None = None
    """Write the table there, as JSON; none: only print it."""

    def run(self) -> None:
        """Run the benchmark."""
        from weightfold.lab.bench import bench_expand

        bench_expand(
            threads=self.threads, repeats=self.repeats, chain=self.chain, folder=self.folder
        )
