"""Files that appear whole or not at all, folders with one writer at a time, errors with a path."""

import csv
import errno
import glob
import io
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")

LOCK = ".lock"

BRIEFLY = 10.0
"""Seconds that a writer of a few files waits for another one in the same folder."""

READS = 100
"""Times that a reader begins anew when what it reads is replaced again and again."""

_TEMPORARY = re.compile(r"\..*\.(?P<host>[A-Za-z0-9]*)-(?P<process>\d+)-\w+\.tmp")
_FORMERLY = re.compile(r"\..+\.(?P<process>\d+)\.tmp")
"""Names of temporary files, of this version and of earlier ones."""


class FolderLockedError(FileExistsError):
    """Another process or thread is writing into a folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it on leaving without an exception.

    The temporary file is made anew under a name that cannot be foreseen, so that no link planted
    there is written through. Those that killed processes left for the same `path` are removed.

    Raises:
        OSError: The disk is full or read-only, ...; the message names `path`.
    """
    temporary = path.with_name(f"{_beginning(path)}{os.getpid()}-{secrets.token_hex(8)}.tmp")
    with explained(path, "writing", temporary):
        temporary.touch(exist_ok=False)  # O_EXCL follows no link
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    _sweep(path.parent, _beginning(path))


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, for files that are moved from it before it is removed.

    Raises:
        OSError: As for `replacing`.
    """
    beginning = f"{_beginning(path)}{os.getpid()}-"
    with explained(path, "writing", path.parent):
        made = TemporaryDirectory(dir=path.parent, prefix=beginning, suffix=".tmp")
    with made as folder, explained(path, "writing", Path(folder)):
        yield Path(folder)
    _sweep(path.parent, _beginning(path))


def _beginning(path: Path) -> str:
    return f".{path.name[:40]}.{_this_host()}-"


def _this_host() -> str:
    return "".join(c for c in socket.gethostname() if c.isascii() and c.isalnum())[:24]


@contextmanager
def explained(path: Path, doing: str, *inside: Path) -> Iterator[None]:
    """Inside, errors of the system that name no file say what was being done to `path`.

    Args:
        path: To be named.
        doing: "writing", ...
        *inside: Temporary files, and folders of such, that are not to be named.

    Raises:
        OSError: In place of one that names nothing, or `path`, or what is `inside`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.filename is not None:
            named = Path(os.fsdecode(error.filename))
            if named != path and not {named, *named.parents} & {*inside}:
                raise
        told = "" if " while " in (error.strerror or "") else f" while {doing}"
        raise OSError(error.errno, f"{error.strerror}{told}", str(path)) from error


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Inside, no other process or thread is inside for the same folder; not even the same thread.

    The folder is made if missing, and removed again if the block raises and leaves nothing in it.
    Temporary files that killed writers left in it are removed. The lock ends with its process,
    however that ends. Readers need no lock, see `settled`.

    Args:
        folder: To write into.
        wait: Seconds to wait for another one to leave; -1: for ever.

    Raises:
        FolderLockedError: Another one is inside; nothing was changed.
        OSError: The folder cannot be made or written into; the message names it.
    """
    made = not folder.is_dir()
    lock = FileLock(folder / LOCK, is_singleton=False)
    end = monotonic() + wait
    while not lock.is_locked:
        try:
            with explained(folder, "making the folder"):
                folder.mkdir(parents=True, exist_ok=True)
            with explained(folder, "locking the folder", folder / LOCK):
                left = end - monotonic()
                lock.acquire(timeout=-1 if wait < 0 else max(0.0, left), blocking=wait != 0)
        except FileNotFoundError:
            continue  # its last writer has just removed the folder
        except Timeout as error:
            raise FolderLockedError(
                f"folder={str(folder)!r} is being written by another process or thread; wait for "
                "its end, or give another folder"
            ) from error
    left_whole = False
    try:
        _sweep_locked(folder)
        yield
        left_whole = True
    finally:
        # Held until the end: who opened the file before it is unlinked tries again with a new one.
        with suppress(OSError):
            (folder / LOCK).unlink()
            if made and not left_whole:
                folder.rmdir()
        lock.release()


def settled(path: Path, read: Callable[[], T]) -> T:
    """What `read()` gives, which is called again where it failed and `path` was replaced meanwhile.

    For a reader, without a lock, of a file that names others: a writer replaces it, then removes
    the files that it names no more.

    Args:
        path: Such a file.
        read: Reads it and the others.

    Raises:
        Exception: What `read` raised while `path` stayed as it was.
    """
    for _ in range(READS - 1):
        before = stamp(path)
        try:
            return read()
        except Exception:
            if stamp(path) == before:
                raise
    return read()


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Something that changes when a file is replaced; None if there is none."""
    try:
        now = path.stat()
    except OSError:
        return None
    return now.st_ino, now.st_mtime_ns, now.st_size


def foreign(folder: Path) -> list[Path]:
    """What a folder holds beside its lock and the temporary files of writers; sorted."""
    own = (_TEMPORARY, _FORMERLY)
    return [
        file
        for file in sorted(folder.glob("*"))
        if file.name != LOCK and not any(name.fullmatch(file.name) for name in own)
    ]


def _sweep(folder: Path, beginning: str) -> None:
    """Remove what processes of this machine that are no more left under a name's beginning."""
    for file in folder.glob(f"{glob.escape(beginning)}*.tmp"):
        process = file.name.removeprefix(beginning).partition("-")[0]
        if process.isdecimal() and not _lives(int(process)):
            _remove(file)


def _sweep_locked(folder: Path) -> None:
    """Remove all that killed writers left, in a folder that has no other writer now."""
    for file in folder.glob(".*.tmp"):
        name = _TEMPORARY.fullmatch(file.name)
        here = name is None or name["host"] == _this_host()
        if (name := name or _FORMERLY.fullmatch(file.name)) is not None and not (
            here and _lives(int(name["process"]))
        ):
            _remove(file)


def _remove(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file, ignore_errors=True)
    else:
        with suppress(OSError):
            file.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_bytes(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Write a file whole.

    Raises:
        OSError: As for `replacing`; of a full disk, with the number of bytes.
    """
    with replacing(path) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            told = f"{error.strerror} while writing {len(content):,} bytes"
            raise OSError(error.errno, told, str(path)) from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` as indented JSON."""
    write_bytes(path, (json.dumps(data, indent=1) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the columns of all of them, in order of appearance; None is left empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
