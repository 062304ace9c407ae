"""`weightfold bench`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Bench:
    """Measure what training in other coordinates costs, in ratios of things timed in turn.

    expand: training steps compact, expanded and folded on the fly, and as a chain of layers, beside
    their estimates. domains: many domains in one backbone: training steps, mixed batches, swaps,
    loading, memory. probes: random projections, training in a subspace, seeds as one batch.
    curvature: the top eigenvalue and landscapes, beside power iteration and a loop.
    """

    what: tyro.conf.Positional[Literal["expand", "domains", "probes", "curvature"]]
    """The benchmark."""

    threads: int = os.cpu_count() or 1
    """Threads of torch."""

    repeats: int = 15
    """Timed steps of each network."""

    chain: bool = True
    """Of expand: also run the chains of layers, which takes most of the time."""

    folder: Path | None = None
    """Write the table there, as JSON; none: only print it."""

    def run(self) -> None:
        """Run the benchmark."""
        if self.what == "curvature":
            from weightfold.bench.curvature import bench_curvature

            bench_curvature(threads=self.threads, repeats=self.repeats, folder=self.folder)
            return
        if self.what == "probes":
            from weightfold.bench.probes import bench_probes

            bench_probes(threads=self.threads, repeats=self.repeats, folder=self.folder)
            return
        if self.what == "domains":
            from weightfold.bench.domains import bench_domains

            bench_domains(threads=self.threads, repeats=self.repeats, folder=self.folder)
            return
        from weightfold.bench.expand import bench_expand

        bench_expand(
            threads=self.threads, repeats=self.repeats, chain=self.chain, folder=self.folder
        )
