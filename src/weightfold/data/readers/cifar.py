"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from weightfold.data.budget import check_regular
from weightfold.data.dataset import Dataset, ImageSet
from weightfold.data.registry import reader
from weightfold.data.torchvision_files import fetch

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_IMAGE_BYTES = 3 * 32 * 32
_NAME_BYTES = 100
_CIFAR10_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclass(frozen=True)
class _Cifar:
    """One of the two sets: its binary layout, torchvision's reader, and its constants.

    Attributes:
        label_bytes: Before each image; the last one is the (fine) label.
        files: File -> images in it; the last file is the test set.
    """

    name: str
    folder: str
    label_bytes: int
    files: dict[str, int]
    torchvision: type[datasets.CIFAR10]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


_CIFAR10 = _Cifar(
    name="cifar10",
    folder="cifar-10-batches-bin",
    label_bytes=1,
    files={**{f"data_batch_{i}.bin": 10_000 for i in range(1, 6)}, "test_batch.bin": 10_000},
    torchvision=datasets.CIFAR10,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
    class_names=_CIFAR10_NAMES,
)
_CIFAR100 = _Cifar(
    name="cifar100",
    folder="cifar-100-binary",
    label_bytes=2,
    files={"train.bin": 50_000, "test.bin": 10_000},
    torchvision=datasets.CIFAR100,
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
    class_names=tuple(str(label) for label in range(100)),
)


@reader("cifar10", f"cifar-10-batches-bin/ with its 6 .bin files (binary version, {_PAGE})")
def cifar10(root: Path, *, download: bool = False) -> Dataset:
    """CIFAR-10: 50,000 and 10,000 photographs in 10 classes, 32 x 32, color.

    Read from `cifar-10-batches-bin/`, else from torchvision's `cifar-10-batches-py/`, whose pickles
    are opened only after torchvision has found their official checksums. Mean and standard
    deviation are those in the ExpandNets paper's code.
    """
    return _read(_CIFAR10, root, download)


@reader("cifar100", f"cifar-100-binary/ with train.bin and test.bin (binary version, {_PAGE})")
def cifar100(root: Path, *, download: bool = False) -> Dataset:
    """CIFAR-100: 50,000 and 10,000 photographs in 100 classes, 32 x 32, color.

    Read from `cifar-100-binary/` (fine labels, class names from its fine_label_names.txt if that
    is there), else from torchvision's `cifar-100-python/`, under the same rule as CIFAR-10.
    """
    return _read(_CIFAR100, root, download)


def _read(cifar: _Cifar, root: Path, download: bool) -> Dataset:
    folder = root / cifar.folder
    if folder.is_dir():
        parts = [_read_file(cifar, folder / file) for file in cifar.files]
        train = ImageSet(*(torch.cat(tensors) for tensors in zip(*parts[:-1], strict=True)))
        test = ImageSet(*parts[-1])
        names, source = cifar.class_names, folder.name
        listed = folder / "fine_label_names.txt"
        if listed.exists():
            names = _read_names(listed, len(names))
    else:
        train_part, test_part = _read_pickles(cifar, root, download)
        train, test = _from_torchvision(train_part), _from_torchvision(test_part)
        names, source = tuple(train_part.classes), cifar.torchvision.base_folder
    record = {"source": source}
    return Dataset(
        cifar.name, train, test, len(cifar.class_names), cifar.mean, cifar.std, names, record
    )


def _read_names(path: Path, classes: int) -> tuple[str, ...]:
    """The names of so many classes, one a line; no more of a file is read than names take."""
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(classes * _NAME_BYTES + 1)
    try:
        names = tuple(content.decode("utf-8").split())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); get it again") from error
    if len(names) != classes or len(content) > classes * _NAME_BYTES:
        raise ValueError(f"{path} does not hold {classes} names and nothing else; get it again")
    return names


def _read_file(cifar: _Cifar, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; {cifar.name} is whole with {', '.join(cifar.files)} ({_PAGE})"
        )
    return read_records(path, cifar.files[path.name], cifar.label_bytes, len(cifar.class_names))


def read_records(
    path: Path, images: int, label_bytes: int, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 (N, 3, 32, 32), and labels, int64 (N,), of one binary file.

    Args:
        path: The file.
        images: How many it must hold.
        label_bytes: Before each image; the last one is its label.
        classes: Labels must be below.

    Raises:
        ValueError: `path` is not a file of that length, or has another label.
    """
    check_regular(path)
    record_bytes = label_bytes + _IMAGE_BYTES
    expected, found = images * record_bytes, path.stat().st_size
    if found != expected:
        raise ValueError(f"{path} has {found:,} bytes instead of {expected:,}; get it again")
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, record_bytes)
    labels = records[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= classes:
        at = int(labels.argmax())
        raise ValueError(
            f"{path}: image {at} has label {labels[at]} of 0..{classes - 1}; get the file again"
        )
    pixels = np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def _read_pickles(
    cifar: _Cifar, root: Path, download: bool
) -> tuple[datasets.CIFAR10, datasets.CIFAR10]:
    """Training and test set from the python version; torchvision unpickles official files only."""
    kind = cifar.torchvision
    folder = root / kind.base_folder
    if not (folder.is_dir() or download):
        raise FileNotFoundError(
            f"neither {root / cifar.folder} nor {folder} exists; unpack there the binary or the "
            f"python version of {_PAGE}, or add download=true"
        )
    try:
        train = fetch(cifar.name, kind, root, train=True, download=download)
        return train, fetch(cifar.name, kind, root, train=False)
    except OSError:
        meta = (kind.meta["filename"], kind.meta["md5"])
        for file, md5 in (*kind.train_list, *kind.test_list, meta):
            if not check_integrity(folder / file, md5):
                found = (folder / file).exists()
                raise ValueError(
                    f"{folder / file} {'is not the official file' if found else 'is missing'}, so "
                    f"no pickle of {folder.name} is opened; get it again ({_PAGE})"
                ) from None
        raise


def _from_torchvision(part: datasets.CIFAR10) -> ImageSet:
    images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
    return ImageSet(torch.from_numpy(images), torch.tensor(part.targets, dtype=torch.int64))
