"""Folders of images, one folder a class."""

import os
from pathlib import Path

import torch
from torchvision.datasets import ImageFolder

from weightfold.data.dataset import Dataset, ImageSet, mean_and_std
from weightfold.data.files import ImageFiles
from weightfold.data.registry import reader

_SAMPLED = 5000


@reader("folder")
def folder(*, path: str, size: int, memory: float = 2.0, workers: int = 4) -> Dataset:
    """Images in train/CLASS/ and test/CLASS/ (or val/); size=PIXELS, path=FOLDER or it alone.

    Images are read as RGB, scaled to a shorter side of `size` and cropped to the middle square. If
    both parts fit in `memory` (10^9 bytes), they are decoded once and held; else they stay files
    that `workers` processes decode as they are needed, and mean and standard deviation are those of
    5,000 training images drawn at random.
    """
    home = Path(path).expanduser()
    test_name = "test" if (home / "test").is_dir() or not (home / "val").is_dir() else "val"
    for part in ("train", test_name):
        if not (home / part).is_dir():
            raise FileNotFoundError(
                f"{home / part} does not exist; a folder of images has train/CLASS/*.png (or .jpg "
                "...) and test/CLASS/ or val/CLASS/"
            )
    folders = [ImageFolder(str(home / part)) for part in ("train", test_name)]
    classes, test_classes = (part.classes for part in folders)
    if test_classes != classes:
        only = set(test_classes) ^ set(classes)
        raise ValueError(
            f"{home}: classes {', '.join(sorted(only)[:5])} are not in both train/ and {test_name}/"
        )
    files = [_files(part, size, workers) for part in folders]
    record = {"source": f"{home.name}/train, {home.name}/{test_name}"}
    if sum(len(part) for part in files) * 3 * size**2 <= memory * 1e9:
        train, test = (ImageSet(part.images, part.labels) for part in files)
        mean, std = mean_and_std(train)
    else:
        train, test = files
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        mean, std = mean_and_std(train.select(order[:_SAMPLED]))
    return Dataset(home.name, train, test, len(classes), mean, std, tuple(classes), record)


def _files(part: ImageFolder, size: int, workers: int) -> ImageFiles:
    paths = [Path(path) for path, _ in part.samples]
    labels = torch.tensor([label for _, label in part.samples])
    return ImageFiles(paths, labels, size, min(workers, os.cpu_count() or 1))
