"""MNIST and its kin: idx files, as LeCun's, in torchvision's folders."""

import gzip
import math
import zlib
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from weightfold.data.budget import check_bytes, check_regular
from weightfold.data.dataset import Dataset, ImageSet, mean_and_std
from weightfold.data.registry import reader
from weightfold.data.torchvision_files import fetch

_FILES = "its 4 idx files (train-images-idx3-ubyte ..., .gz or not)"
_ENDS = ("-images-idx3-ubyte", "-labels-idx1-ubyte")
_HEADER = 4


@reader("mnist", f"MNIST/raw/ with {_FILES}, or add download=true")
def mnist(root: Path, *, download: bool = False) -> Dataset:
    """MNIST: 60,000 and 10,000 handwritten digits, 28 x 28, gray."""
    return _read("mnist", datasets.MNIST, root, download)


@reader("fashion_mnist", f"FashionMNIST/raw/ with {_FILES}, or add download=true")
def fashion_mnist(root: Path, *, download: bool = False) -> Dataset:
    """Fashion-MNIST: 60,000 and 10,000 pieces of clothing in 10 classes, 28 x 28, gray."""
    return _read("fashion_mnist", datasets.FashionMNIST, root, download)


@reader("kmnist", f"KMNIST/raw/ with {_FILES}, or add download=true")
def kmnist(root: Path, *, download: bool = False) -> Dataset:
    """Kuzushiji-MNIST: 60,000 and 10,000 cursive kana in 10 classes, 28 x 28, gray."""
    return _read("kmnist", datasets.KMNIST, root, download)


@reader("emnist", "EMNIST/raw/ with emnist-balanced-train-images-idx3-ubyte ..., or download=true")
def emnist(root: Path, *, part: str = "balanced", download: bool = False) -> Dataset:
    """EMNIST: handwritten letters and digits, 28 x 28, gray; part=letters, digits, ...

    Classes and orientation are torchvision's: the images lie on their side, as in the files, and
    class 0 of part=letters ("N/A") is empty.
    """
    if part not in datasets.EMNIST.splits:
        raise ValueError(f"part={part!r} of emnist; use one of {', '.join(datasets.EMNIST.splits)}")
    files = f"emnist-{part}-train", f"emnist-{part}-test"
    names = datasets.EMNIST.classes_split_dict[part]
    return _read("emnist", datasets.EMNIST, root, download, files, names, split=part)


def _read(
    name: str,
    kind: type[datasets.MNIST],
    root: Path,
    download: bool,
    prefixes: tuple[str, str] = ("train", "t10k"),
    names: Sequence[str] = (),
    **options: Any,
) -> Dataset:
    """The set whose training and test files begin with `prefixes`; `options` are torchvision's."""
    folder = root / kind.__name__ / "raw"
    train, test = ([folder / f"{prefix}{end}" for end in _ENDS] for prefix in prefixes)
    if download and not all(_present(file) for file in (*train, *test)):
        fetch(name, kind, root, download=True, **options)
    names = tuple(names or kind.classes)
    train_set, test_set = (
        _read_pair(images, labels, len(names)) for images, labels in (train, test)
    )
    if train_set.image_shape != test_set.image_shape:
        raise ValueError(
            f"{train[0]} has images of {train_set.image_shape} and {test[0]} of "
            f"{test_set.image_shape}; get both again"
        )
    mean, std = mean_and_std(train_set)
    if min(std) <= 0:
        raise ValueError(f"{train[0]}: all pixels are alike; get it again")
    record = {"source": f"{kind.__name__}/raw"}
    return Dataset(name, train_set, test_set, len(names), mean, std, names, record)


def _read_pair(images_file: Path, labels_file: Path, classes: int) -> ImageSet:
    images, labels = _read_idx(images_file, 3), _read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{images_file} has {len(images)} images and {labels_file} {len(labels)} labels; "
            "get both again"
        )
    if labels.max() >= classes:
        raise ValueError(
            f"{labels_file}: image {int(labels.argmax())} has label {int(labels.max())} of "
            f"0..{classes - 1}; get the file again"
        )
    return ImageSet(images.unsqueeze(1), labels.long())


def _present(file: Path) -> Path | None:
    """The file itself, else the compressed one."""
    return next((f for f in (file, file.with_name(file.name + ".gz")) if f.exists()), None)


def _read_idx(file: Path, dimensions: int) -> Tensor:
    """The bytes of an idx file as a uint8 tensor of its shape."""
    path = _present(file)
    if path is None:
        raise FileNotFoundError(
            f"{file} is missing, and so is {file.name}.gz; put one there, or add download=true"
        )
    check_regular(path)
    packed, stored = path.suffix == ".gz", path.stat().st_size
    try:
        with gzip.open(path) if packed else path.open("rb") as opened:
            shape = _shape(opened, path, dimensions)
            header, pixels = _HEADER + 4 * dimensions, math.prod(shape)
            if not packed:
                _check_length(path, stored, header + pixels, shape)
            check_bytes(path, header + pixels, stored if packed else None)
            content = bytearray(pixels)
            found = header + _fill(opened, content)
            # One byte more than wanted is asked for, never all that a small file unpacks to.
            _check_length(path, found + len(opened.read(1)), header + pixels, shape)
    except (OSError, EOFError, zlib.error) as error:
        doing = "unpacked" if packed else "read"
        raise ValueError(f"{path} cannot be {doing} ({error}); get it again") from error
    return torch.frombuffer(content, dtype=torch.uint8).view(shape)


def _shape(file: BufferedIOBase, path: Path, dimensions: int) -> tuple[int, ...]:
    # Two zero bytes, the type (8: unsigned byte), the number of dimensions, and each as 4 bytes.
    header = file.read(_HEADER + 4 * dimensions)
    if len(header) < _HEADER + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(
            f"{path} is no idx file of bytes with {dimensions} dimensions; get it again"
        )
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, len(header), 4))
    if 0 in shape:
        raise ValueError(f"{path} is empty by its header, of shape {shape}; get it again")
    return shape


def _fill(file: BufferedIOBase, content: bytearray) -> int:
    """Read until `content` is full or the file ends; returns the bytes read."""
    view, done = memoryview(content), 0
    while done < len(content) and (count := file.readinto(view[done:])):
        done += count
    return done


def _check_length(path: Path, found: int, expected: int, shape: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(
            f"{path} has {found:,} bytes (unpacked) instead of {expected:,} for its shape "
            f"{shape}; get it again"
        )
