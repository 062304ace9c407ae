"""Executors by name, and the opening of one from its spec. Imports no torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from weightfold.lab.executors.base import RunExecutor
from weightfold.spec import parse_spec, read_options


@cache
def executors() -> Mapping[str, Any]:
    """Name of a file -> its `EXECUTOR`, for every file of this folder that has one.

    It is called with the folder of the runs, the number of jobs and the options of the spec.
    """
    package = import_module("weightfold.lab.executors")
    names = (f"{package.__name__}.{module.name}" for module in iter_modules(package.__path__))
    found = {name.rpartition(".")[2]: import_module(name) for name in names}
    return {name: m.EXECUTOR for name, m in found.items() if hasattr(m, "EXECUTOR")}


@contextmanager
def opened(on: str, root: Path, *, jobs: int | None = None) -> Iterator[RunExecutor]:
    """The executor of a spec; on leaving the block, what it has not finished is cancelled.

    Args:
        on: "local"; "slurm" or "ray" with options, as in "slurm,partition=gpu,time=120".
        root: Folder of the runs.
        jobs: At most so many runs at once; None: one on this machine, elsewhere as many as the
            cluster takes.

    Raises:
        ValueError: The spec is wrong or `jobs` is below 1.
        ImportError: Its package is not installed; the message names the extra.
        ConnectionError: The cluster cannot be reached.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs={jobs}: give how many runs at once, at least 1")
    name, texts = parse_spec(on)
    if name not in executors():
        near = get_close_matches(name, executors(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"on={on!r}: no executor {name!r}; {hint}executors: {', '.join(executors())}"
        )
    make = executors()[name]
    options = read_options(name, texts, getattr(make, "options", {}))
    executor: RunExecutor = make(Path(root).absolute(), jobs, **options)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
