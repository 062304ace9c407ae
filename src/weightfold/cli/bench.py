"""`weightfold bench`."""

import inspect
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Literal

import tyro

from weightfold import bench

_NAMES = tuple(m.name for m in iter_modules(bench.__path__) if not m.name.startswith("_"))


@dataclass(frozen=True)
class Bench:
    """Measure what training in other coordinates costs, in ratios of things timed in turn.

    expand: training steps compact, expanded and folded on the fly, and as a chain of layers, beside
    their estimates. domains: many domains in one backbone: training steps, mixed batches, swaps,
    loading, memory. probes: random projections, training in a subspace, seeds as one batch.
    curvature: the top eigenvalue and landscapes, beside power iteration and a loop. geometry:
    networks of linear layers in place of convolutions: how they are built, and a step of one.
    """

    what: tyro.conf.Positional[Literal[_NAMES]]  # type: ignore[valid-type]
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
        function = getattr(import_module(f"{bench.__name__}.{self.what}"), f"bench_{self.what}")
        given = {"threads": self.threads, "repeats": self.repeats, "chain": self.chain}
        taken = {
            name: given[name] for name in inspect.signature(function).parameters.keys() & given
        }
        function(**taken, folder=self.folder)
