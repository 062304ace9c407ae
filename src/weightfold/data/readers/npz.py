"""Arrays in one .npz file."""

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from weightfold.data.budget import MAX_CLASSES, check_bytes, check_regular
from weightfold.data.dataset import Dataset, Examples, mean_and_std
from weightfold.data.registry import reader

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# What numpy.savez and savez_compressed write; other packings may take gigabytes to unpack.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Of an array's header; numpy refuses longer ones than this by itself.
_HEADER_BYTES = 10_000
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DAMAGE = (
    *(ValueError, OSError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class _Member:
    """One array of the file, as its header has it.

    Attributes:
        shape: Of the array.
        dtype: Of the array.
    """

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@reader("npz")
def npz(*, path: str) -> Dataset:
    """Arrays x_train, y_train, x_test, y_test in an .npz file; path=FILE, or the path alone.

    Images are uint8, (N, H, W) or (N, H, W, C) with C 1 or 3; labels whole numbers from 0, (N,), or
    other targets: real numbers (N, ...), whole ones (N, L), for tasks that take them.
    Objects (pickles) in the file are refused. All headers are checked before an array is read.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"path={path!r} does not exist")
    check_regular(file)
    check_bytes(file, file.stat().st_size)
    arrays = _arrays(file)
    train, test = (_image_set(file, arrays, part) for part in ("train", "test"))
    labels = [part.labels for part in (train, test)]
    highest = [int(found.max()) for found in labels if found is not None]
    classes = 1 + max(highest) if len(highest) == 2 else 0
    mean, std = mean_and_std(train)
    if min(std) <= 0:
        raise ValueError(f"{file}: all of x_train is alike in a channel; give images that differ")
    names = tuple(str(label) for label in range(classes))
    return Dataset(file.stem, train, test, classes, mean, std, names, {"source": file.name})


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive)
            train, test = (_image_shape(members, part) for part in ("train", "test"))
            if train != test:
                raise ValueError(f"x_train has images of {train} and x_test of {test}")
            _check_alike(members["y_train"], members["y_test"])
            needed = sum(member.nbytes for member in members.values())
            check_bytes("it", needed, sum(m.info.compress_size for m in members.values()))
            return {name: _read(archive, member) for name, member in members.items()}
    except _DAMAGE as error:
        raise ValueError(
            f"{file} does not load as .npz with {', '.join(_ARRAYS)}: {error}"
        ) from error


def _members(archive: zipfile.ZipFile) -> dict[str, _Member]:
    """The arrays wanted, by their headers."""
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if missing := [name for name in _ARRAYS if name not in infos]:
        listed = ", ".join(list(infos)[:8]) or "nothing"
        raise ValueError(f"it lacks {', '.join(missing)}; it holds {listed[:200]}")
    return {name: _member(archive, infos[name]) for name in _ARRAYS}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    if info.compress_type not in _PACKINGS:
        raise ValueError(f"{info.filename} is packed in another way than numpy's; save it again")
    with archive.open(info) as opened:
        # In memory, so that no length in the header makes numpy read on.
        head = io.BytesIO(opened.read(_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        shape, _, dtype = _HEADERS[version](head)
    # It is parsed as Python is: numpy lets through KeyError, TokenError, RecursionError, ...
    except Exception as error:
        raise ValueError(f"{info.filename} has no header of an array ({error})") from error
    if dtype.hasobject:
        raise ValueError(f"{info.filename}: Object arrays cannot be loaded")
    member = _Member(info, shape, dtype)
    if min(shape, default=0) < 0 or head.tell() + member.nbytes != info.file_size:
        raise ValueError(
            f"{info.filename} is {dtype} {shape} by its header, in {info.file_size:,} bytes; "
            "the two do not fit"
        )
    return member


def _image_shape(members: dict[str, _Member], part: str) -> tuple[int, ...]:
    """(H, W, C); arrays of other shapes and types than images and their labels are refused."""
    images, labels = members[f"x_{part}"], members[f"y_{part}"]
    last = images.shape[3:] or (1,)
    known = len(images.shape) in (3, 4) and last in ((1,), (3,))
    if images.dtype != np.uint8 or not known or 0 in images.shape:
        raise ValueError(
            f"x_{part} is {images.dtype} {images.shape}; it must be uint8, 0 to 255, (N, H, W) or "
            "(N, H, W, 3), and not empty"
        )
    if labels.dtype.kind not in "iuf" or labels.shape[:1] != images.shape[:1]:
        raise ValueError(
            f"y_{part} is {labels.dtype} {labels.shape}; it must be whole numbers, "
            f"({images.shape[0]},), or numbers, ({images.shape[0]}, ...)"
        )
    return (*images.shape[1:3], *last)


def _check_alike(train: _Member, test: _Member) -> None:
    """Refuse targets of two kinds."""
    real = [member.dtype.kind == "f" for member in (train, test)]
    if real[0] != real[1] or train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"y_train is {train.dtype} {train.shape} and y_test {test.dtype} {test.shape}; give "
            "both the same kind of targets"
        )


def _read(archive: zipfile.ZipFile, member: _Member) -> np.ndarray:
    with archive.open(member.info) as opened:
        array = np.lib.format.read_array(opened, allow_pickle=False)
        # The checksum is compared when the end is met.
        opened.read(1)
    return array


def _image_set(file: Path, arrays: dict[str, np.ndarray], part: str) -> Examples:
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    images = images[..., np.newaxis] if images.ndim == 3 else images
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    if labels.dtype.kind == "f":
        return Examples(pixels, torch.from_numpy(labels.astype(np.float32)))
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= MAX_CLASSES:
        raise ValueError(
            f"{file}: y_{part} has label {low if low < 0 else high}; count classes from 0, and not "
            f"to {MAX_CLASSES:,} or more"
        )
    return Examples(pixels, torch.from_numpy(labels.astype(np.int64)))
