"""Data sets: .npz, idx plain and packed, CIFAR binary, folders of images.

None of them carries a hash of its pixels, so that a changed pixel, label or number of images is
another data set and not a damaged one. What must hold: it is refused by name, or is images of the
shape that the others have, with labels of classes that there are.
"""

import gzip
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from mutation.harness import Format
from weightfold.data import load
from weightfold.data.dataset import Dataset
from weightfold.data.readers.cifar import read_records


def _facts(dataset: Dataset) -> tuple[object, ...]:
    """What no mutation may change: that the parts are whole, of one shape, with known labels."""
    whole = []
    for part in (dataset.train, dataset.test):
        images = part.images
        low, high = int(part.labels.min()), int(part.labels.max())
        whole.append(len(images) == len(part) and 0 <= low <= high < dataset.num_classes)
        whole.append(images.numpy().size == len(part) * np.prod(dataset.train.image_shape))
    return (*whole, len(dataset.class_names) == dataset.num_classes <= 1_000_000)


def _arrays(count: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % 3


def _write_npz(folder: Path) -> None:
    (x, y), (x_test, y_test) = _arrays(8, (6, 5, 3)), _arrays(4, (6, 5, 3))
    for save, name in ((np.savez, "plain"), (np.savez_compressed, "packed")):
        save(folder / f"{name}.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)


def _read_npz(folder: Path) -> object:
    return [_facts(load(str(folder / f"{name}.npz"))) for name in ("plain", "packed")]


def _write_idx(folder: Path, packed: bool) -> None:
    raw = folder / "MNIST/raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 9), ("t10k", 5)):
        images, labels = _arrays(count, (28, 28))
        named = (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8)))
        for name, array in named:
            header = bytes([0, 0, 8, array.ndim])
            header += b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = header + array.tobytes()
            path = raw / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)


def _write_cifar(folder: Path) -> None:
    """A file in small; a whole set has 184 MB."""
    records = [bytes([i]) + bytes(range(256)) * 12 for i in range(5)]
    (folder / "data_batch_1.bin").write_bytes(b"".join(records))


def _read_cifar(folder: Path) -> object:
    images, labels = read_records(folder / "data_batch_1.bin", 5, label_bytes=1, classes=10)
    return images.shape, labels.shape, int(labels.max()) < 10


def _write_images(folder: Path) -> None:
    names = ["train/ant/0.png", "train/ant/1.gif", "train/bee/0.jpeg", "train/bee/1.tiff"]
    names += ["test/ant/0.webp", "test/bee/0.bmp"]
    for name, pixels in zip(names, _arrays(len(names), (9, 12, 3))[0], strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"compression": "tiff_lzw"} if path.suffix == ".tiff" else {}
        Image.fromarray(pixels).save(path, **options)


def _read_images(folder: Path) -> object:
    with warnings.catch_warnings():
        # Pillow's, about damaged metadata; and ours, about what is skipped.
        warnings.simplefilter("ignore")
        return _facts(load(f"{folder},size=8"))


FORMATS = (
    Format("npz", _write_npz, _read_npz),
    Format("idx", lambda f: _write_idx(f, packed=False), lambda f: _facts(load("mnist", f))),
    Format("idx-gz", lambda f: _write_idx(f, packed=True), lambda f: _facts(load("mnist", f))),
    Format("cifar", _write_cifar, _read_cifar),
    Format("images", _write_images, _read_images),
)
