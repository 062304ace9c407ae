"""Folders of images, one folder a class."""

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from weightfold.data.dataset import Dataset, ImageSet, mean_and_std
from weightfold.data.decode import ENDINGS
from weightfold.data.files import ImageFiles
from weightfold.data.registry import reader

_SAMPLED = 5000
_NAMED = 10


@dataclass
class _Listing:
    """What lies in train/ or test/.

    Attributes:
        classes: Class -> its image files, both sorted by name.
        skipped: Files and folders that are no images of a class.
    """

    classes: dict[str, list[Path]]
    skipped: list[Path] = field(default_factory=list)


@reader("folder")
def folder(*, path: str, size: int, memory: float = 2.0, workers: int = 4) -> Dataset:
    """Images in train/CLASS/ and test/CLASS/ (or val/); size=PIXELS, path=FOLDER or it alone.

    Images are decoded to RGB as `weightfold.data.decode` says, scaled to a shorter side of `size`
    and cropped to the middle square. If both parts fit in `memory` (10^9 bytes), they are decoded
    once and held; else they stay files that `workers` processes decode as they are needed, and mean
    and standard deviation are those of 5,000 training images drawn at random. What is no image, by
    the end of its name, and what is hidden is skipped with a warning, and counted in the record.
    """
    home = Path(path).expanduser()
    test_name = "test" if (home / "test").is_dir() or not (home / "val").is_dir() else "val"
    for part in ("train", test_name):
        if not (home / part).is_dir():
            raise FileNotFoundError(
                f"{home / part} does not exist; a folder of images has train/CLASS/*.png (or .jpg "
                "...) and test/CLASS/ or val/CLASS/"
            )
    parts = [_list(home / part) for part in ("train", test_name)]
    classes, test_classes = (list(part.classes) for part in parts)
    if test_classes != classes:
        only = set(test_classes) ^ set(classes)
        raise ValueError(
            f"{home}: classes {', '.join(sorted(only)[:5])} are not in both train/ and {test_name}/"
        )
    if len(classes) < 2:
        raise ValueError(
            f"{home}: {classes[0]} is the only class; give a folder of each of at least two"
        )
    record = {"source": f"{home.name}/train, {home.name}/{test_name}"}
    record |= _tell_skipped(home, [file for part in parts for file in part.skipped])
    files = [_files(part, size, workers) for part in parts]
    if sum(len(part) for part in files) * 3 * size**2 <= memory * 1e9:
        train, test = (ImageSet(part.images, part.labels) for part in files)
        mean, std = mean_and_std(train)
    else:
        train, test = files
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        mean, std = mean_and_std(train.select(order[:_SAMPLED]))
    return Dataset(home.name, train, test, len(classes), mean, std, tuple(classes), record)


def _list(part: Path) -> _Listing:
    listing = _Listing({})
    for entry in sorted(part.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            listing.skipped.append(entry)
            continue
        listing.classes[entry.name] = _images_below(entry, listing.skipped)
        if not listing.classes[entry.name]:
            raise FileNotFoundError(
                f"{entry} holds no image; an image's name ends in one of {', '.join(ENDINGS)}"
            )
    if not listing.classes:
        raise FileNotFoundError(f"{part} has no folder of a class in it; put CLASS/*.png there")
    return listing


def _images_below(top: Path, skipped: list[Path]) -> list[Path]:
    """Image files of a class in the order of their paths; what else there is goes to `skipped`."""
    found: list[Path] = []
    seen = set()

    def unreadable(error: OSError) -> None:
        skipped.append(Path(error.filename))

    for folder, inner, names in os.walk(top, followlinks=True, onerror=unreadable):
        here = Path(folder)
        about = here.stat()
        # Links may lead in a circle, or many times to one place.
        if (about.st_dev, about.st_ino) in seen:
            skipped.append(here)
            inner.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        hidden = [name for name in inner if name.startswith(".")]
        inner[:] = sorted(set(inner) - set(hidden))
        skipped += [here / name for name in hidden]
        for name in names:
            taken = not name.startswith(".") and name.lower().endswith(ENDINGS)
            (found if taken else skipped).append(here / name)
    # By the text of the folder first, as torchvision orders them.
    return sorted(found, key=lambda file: (str(file.parent), file.name))


def _tell_skipped(home: Path, skipped: list[Path]) -> dict[str, Any]:
    """What the record says of skipped files; nothing if there are none."""
    if not skipped:
        return {}
    names = [str(file.relative_to(home)) for file in skipped[:_NAMED]]
    more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    warnings.warn(
        f"{home}: {len(skipped)} files or folders were skipped, hidden or by their names no "
        f"image: {', '.join(names)}{more}",
        stacklevel=2,
    )
    return {"skipped": len(skipped), "skipped_files": names}


def _files(listing: _Listing, size: int, workers: int) -> ImageFiles:
    paths = [path for files in listing.classes.values() for path in files]
    labels = [label for label, files in enumerate(listing.classes.values()) for _ in files]
    return ImageFiles(paths, torch.tensor(labels), size, min(workers, os.cpu_count() or 1))
