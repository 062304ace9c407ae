"""Files that appear whole or not at all, folders with one writer at a time, errors with a path."""

import csv
import glob
import io
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it on leaving without an exception.

    The temporary file is made anew under a name that cannot be foreseen, so that no link planted
    there is written through. Those that killed processes left for the same `path` are removed.

    Raises:
        OSError: The disk is full or read-only, ...; the message names `path`.
    """
    beginning = f".{path.name[:40]}.{_this_host()}-"
    with explained(path, "writing"):
        temporary = path.with_name(f"{beginning}{os.getpid()}-{secrets.token_hex(8)}.tmp")
        temporary.touch(exist_ok=False)  # O_EXCL follows no link
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    _sweep(path.parent, beginning)


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Inside, errors of the system that name no file say what was being done to `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename == str(path):
            raise
        raise OSError(error.errno, f"{error.strerror} while {doing}", str(path)) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process or thread is inside for the same folder; made if missing.

    Raises:
        FileExistsError: Another one is; nothing was changed.
    """
    with explained(folder, "making the folder"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=False)
    with explained(folder / LOCK, "locking"):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise FileExistsError(
                f"folder={str(folder)!r} is being written by another process; wait for its end, "
                "or give another folder"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _sweep(folder: Path, beginning: str) -> None:
    """Remove temporary files of processes of this machine that are no more."""
    for file in folder.glob(f"{glob.escape(beginning)}*.tmp"):
        process = file.name.removeprefix(beginning).partition("-")[0]
        if process.isdecimal() and not _lives(int(process)):
            file.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _this_host() -> str:
    return "".join(c for c in socket.gethostname() if c.isalnum())[:24]


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the columns of all of them, in order of appearance; None is left empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
