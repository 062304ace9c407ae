"""Exported files, which appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weightfold.files import temporary_folder


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside; moved to `path` if the block succeeds.

    A folder, because ONNX refers to weights over 2 GB by the name of a second file.

    Raises:
        FileNotFoundError: The folder of `path` is missing.
        IsADirectoryError: `path` is a folder.
        OSError: The disk is full or read-only, ...; the message names `path`.
    """
    path = checked(path)
    with temporary_folder(path) as folder:
        yield folder / path.name
        # The file that refers to the others comes last.
        for file in sorted(folder.iterdir(), key=lambda f: f.name == path.name):
            file.replace(path.parent / file.name)


def checked(path: str | Path) -> Path:
    """`path`, if a file can be written there.

    Raises:
        FileNotFoundError: The folder of `path` is missing.
        IsADirectoryError: `path` is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: make the folder {str(path.parent)!r} first")
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder; give the name of a file in it")
    return path
