"""Arrays in one .npz file."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from weightfold.data.dataset import Dataset, ImageSet, mean_and_std
from weightfold.data.registry import reader

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@reader("npz")
def npz(*, path: str) -> Dataset:
    """Arrays x_train, y_train, x_test, y_test in an .npz file; path=FILE, or the path alone.

    Images are uint8, (N, H, W) or (N, H, W, C) with C 1 or 3; labels whole numbers from 0, (N,).
    Objects (pickles) in the file are refused.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"path={path!r} does not exist")
    arrays = _arrays(file)
    train, test = (_image_set(file, arrays, part) for part in ("train", "test"))
    classes = 1 + max(int(part.labels.max()) for part in (train, test))
    mean, std = mean_and_std(train)
    names = tuple(str(label) for label in range(classes))
    return Dataset(file.stem, train, test, classes, mean, std, names, {"source": file.name})


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as content:
            missing = [name for name in _ARRAYS if name not in content]
            if missing:
                raise ValueError(
                    f"it lacks {', '.join(missing)}; it holds {', '.join(content) or 'nothing'}"
                )
            return {name: content[name] for name in _ARRAYS}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is no .npz file with {', '.join(_ARRAYS)}: {error}") from error


def _image_set(file: Path, arrays: dict[str, np.ndarray], part: str) -> ImageSet:
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{file}: x_{part} is {images.dtype} {arrays[f'x_{part}'].shape}; it must be uint8, "
            "0 to 255, (N, H, W) or (N, H, W, 3)"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{file}: y_{part} is {labels.dtype} {labels.shape}; it must be whole numbers, "
            f"({len(images)},)"
        )
    if labels.size and int(labels.min()) < 0:
        raise ValueError(f"{file}: y_{part} has label {labels.min()}; count classes from 0")
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))
