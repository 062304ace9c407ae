"""What a worker does for a cell, where it sees the folder of the runs and where it does not."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from weightfold.files import locked
from weightfold.lab.executors.base import RUNNING
from weightfold.lab.executors.board import Board, telling_of
from weightfold.lab.run import Run, run
from weightfold.train.progress import Progress


class Busy(RuntimeError):
    """Another process makes the run at this moment."""


@contextmanager
def claimed(cell: Run, root: Path) -> Iterator[None]:
    """Inside, no other process that sees `root` is inside for the same cell.

    Raises:
        Busy: Another one is.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root / RUNNING / cell.folder))
        except FileExistsError as error:
            if error.errno is not None:
                raise
            raise Busy(f"{cell.folder} is being run by another process") from error
        yield


def work(cell: Run, root: Path, data_root: Path | None, board: Board) -> Any:
    """Make a run in its folder below `root`, or go on with it; a finished one is read.

    Args:
        cell: What to train.
        root: Folder of the runs, which holds that of `cell.before`.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        board: Told how far it is.

    Returns:
        The record of the run.

    Raises:
        Busy: Another process makes it.
    """
    with claimed(cell, root):
        board.tell(cell.folder, Progress(0, 0, "starting"))
        return run(cell, root, data_root=data_root, progress=telling_of(cell.folder, board))


def work_away(cell: Run, given: bytes, data_root: Path | None, board: Board) -> tuple[Any, bytes]:
    """Make a run where the folder of the runs is not seen.

    Args:
        cell: What to train.
        given: What it goes on from and that of `cell.before`, from `pack`.
        data_root: Data folder of the worker's machine; None: its $WEIGHTFOLD_DATA.
        board: Told how far it is.

    Returns:
        The record of the run, and its folder, from `pack`.
    """
    with TemporaryDirectory(prefix="weightfold-") as folder:
        root = Path(folder)
        unpack(given, root)
        record = work(cell, root, data_root, board)
        return record, pack(root, [cell.folder])


def pack(root: Path, folders: Sequence[str]) -> bytes:
    """Folders below `root`, those that there are, as an uncompressed tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in folders:
            if (root / folder).exists():
                tar.add(root / folder, arcname=folder)
    return archive.getvalue()


def unpack(archive: bytes, root: Path) -> None:
    """Write what `pack` read below another `root`; nothing outside of it.

    Raises:
        tarfile.FilterError: A member would lie outside.
    """
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(root, filter="data")


def bring_back(cell: Run, archive: bytes, root: Path) -> None:
    """Put a run's folder from `work_away` below `root`, whole, in place of what there was.

    Raises:
        OSError: The disk is full, ...
    """
    with TemporaryDirectory(dir=root / RUNNING) as temporary:
        unpack(archive, Path(temporary))
        if (root / cell.folder).exists():
            (root / cell.folder).rename(Path(temporary) / "before")
        (Path(temporary) / cell.folder).rename(root / cell.folder)
