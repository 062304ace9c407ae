"""How far runs are, told by the workers that make them to the process that waits for them."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Protocol

from weightfold.files import write_json
from weightfold.train.progress import Progress, ProgressCallback

TELL_SECONDS = 0.5
"""A run is told of at most so often."""


class Board(Protocol):
    """Holds the latest `Progress` of each run; goes to workers, so it can be pickled."""

    def tell(self, name: str, now: Progress) -> None:
        """A run has come so far."""
        ...

    def read(self) -> dict[str, Progress]:
        """Name -> how far it is, of all runs that were told of."""
        ...

    def forget(self, name: str) -> None:
        """A run is no longer of interest."""
        ...


class FileBoard:
    """A board in a folder that all processes see, one file a run.

    Args:
        folder: Made when the first run is told of.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def tell(self, name: str, now: Progress) -> None:
        """As `Board`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(name), asdict(now))

    def read(self) -> dict[str, Progress]:
        """As `Board`."""
        found = {}
        for path in self._folder.glob("[!.]*.json"):
            with suppress(FileNotFoundError):  # forgotten since it was listed
                found[path.stem] = Progress(**json.loads(path.read_text(encoding="utf-8")))
        return found

    def forget(self, name: str) -> None:
        """As `Board`."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def telling_of(
    name: str, board: Board, *, clock: Callable[[], float] = monotonic
) -> ProgressCallback:
    """A function that tells a board how far a run is, at most every `TELL_SECONDS`.

    Args:
        name: Of the run.
        board: What is told.
        clock: Seconds since any fixed time.
    """
    last = clock() - TELL_SECONDS

    def tell(now: Progress) -> None:
        nonlocal last
        if clock() - last >= TELL_SECONDS:
            last = clock()
            board.tell(name, now)

    return tell
