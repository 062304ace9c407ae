"""A run: one training or one probe, named by everything that defines it. Imports no torch."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from weightfold.tasks.measure import ACCURACY, Measure
from weightfold.train.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from weightfold.train import Row


@dataclass(frozen=True)
class Run(ABC):
    """What is done, on what, how, and from which seed: a frozen dataclass of plain values.

    Equal runs have equal results and share a folder. A field with `compare=False` does not define
    a run and is left out of its name and settings.
    """

    @property
    @abstractmethod
    def title(self) -> str:
        """What is being done, in a few words."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """What the name of its folder tells a reader."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that defines it, as JSON values."""
        return plain(self)

    @property
    def key(self) -> str:
        """Hash of the settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def folder(self) -> str:
        """Name of the run's folder, readable and unique."""
        return "_".join(slug(part, "-.+") for part in (*self.parts, self.key) if part)

    @property
    def before(self) -> "Run | None":
        """The run that must be finished first."""
        return None

    @property
    def derived(self) -> dict[str, Any]:
        """What follows from the settings alone and a page tells, as JSON values."""
        return {}

    def over(self, seeds: Sequence[int]) -> tuple[Self, ...]:
        """This run with each of the seeds."""
        return tuple(replace(self, seed=seed) for seed in seeds)  # type: ignore[call-arg]

    def on(self, there: str, here: str) -> Self:
        """This run on the data spec `here` where it begins with `there`; options stay.

        Raises:
            ValueError: Its data cannot be exchanged.
        """
        raise ValueError(f"data={here!r}: {self.title} has its own data; leave data out")

    @abstractmethod
    def finished(self, root: Path) -> Any:
        """Its record below `root`; None if it has not come to its end."""

    @abstractmethod
    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | ProgressCallback = True
    ) -> Any:
        """Do it in its folder below `root`, or go on where it stopped; a no-op once finished.

        Args:
            root: Folder of the runs; holds that of `before`, finished.
            data_root: Data folder; None: $WEIGHTFOLD_DATA.
            progress: True for a progress bar; or a function told how far it is.

        Returns:
            Its record.
        """

    def to_json(self, record: Any) -> Any:
        """A record as JSON values: as it is, but for classes that say otherwise."""
        return record

    def from_json(self, written: Any) -> Any:
        """Inverse of `to_json`."""
        return written


@dataclass(frozen=True)
class Execution:
    """Where and how runs are made.

    Attributes:
        on: "local"; "slurm" or "ray" with options, as in "slurm,partition=gpu,time=120", see
            `weightfold.lab.executors`.
        jobs: Runs at once; None: one on this machine, elsewhere as many as the cluster takes.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        progress: Show a bar for all runs and one for each that is running.
    """

    on: str = "local"
    jobs: int | None = None
    data_root: Path | None = None
    progress: bool = True


HERE = Execution()
"""In this process, one run after another."""


UNHASHED_DEFAULT = {"unhashed_default": True}
"""Metadata of a field that was added later: with its default, runs keep the hash they had."""


def plain(value: Any) -> Any:
    """A value as JSON values; of dataclasses the fields that are compared."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if _hashed(value, f)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(inner) for inner in value]
    return value


def _hashed(value: Any, of: Field) -> bool:
    """Whether a field of a run is a part of its hash."""
    return of.compare and not (
        of.metadata.get("unhashed_default") and getattr(value, of.name) == of.default
    )


def slug(text: str, more: str = "") -> str:
    """The text with a hyphen for all but letters, digits and the characters of `more`."""
    return "".join(c if c.isalnum() or c in more else "-" for c in text)


def by_epoch(
    progress: bool | ProgressCallback, epochs: int, measure: Measure = ACCURACY
) -> "bool | Callable[[Row], None]":
    """What `fit` takes, of what a run takes.

    Args:
        progress: True for a progress bar; or a function told of each epoch.
        epochs: Of the run.
        measure: Of the task, that is told.
    """
    if isinstance(progress, bool):
        return progress
    return lambda row: progress(
        Progress(row.epoch, epochs, f"test {measure.text(row.get(f'test_{measure.name}'))}")
    )


def run(
    one: Run,
    root: Path,
    *,
    data_root: Path | None = None,
    progress: bool | ProgressCallback = True,
) -> Any:
    """Do a run and those that must be finished before it; finished ones are left as they are.

    Args:
        one: What to do.
        root: Folder of the runs.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        progress: True for bars; or a function told how far they are.

    Returns:
        The record of the run.
    """
    if one.before is not None and one.before.finished(root) is None:
        run(one.before, root, data_root=data_root, progress=progress)
    return one.train(root, data_root=data_root, progress=progress)
