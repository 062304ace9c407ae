"""Data sets by spec."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from weightfold.data.budget import check_bytes
from weightfold.data.corruption import corrupt_labels
from weightfold.data.dataset import Dataset, Examples
from weightfold.data.decode import scaled_pixels, square
from weightfold.data.files import ImageFiles
from weightfold.data.registry import readers
from weightfold.data.splitting import consecutive
from weightfold.spec import parse_spec, read_options

_COMMON = {"rgb": bool, "size": int, "corrupt": float, "limit": int, "seed": int, "group": int}
_AT_ONCE = 1000


def load(spec: str, root: Path | str | None = None) -> Dataset:
    """Load a data set.

    Args:
        spec: "name" or "name,key=value,key=value": a name of `available`, or the path of an .npz
            file or of a folder of images ("photos,size=64"). Every data set takes

            - rgb=true: repeat grayscale images to 3 channels;
            - size=N: scale the shorter side to N pixels and take the middle square (mean and
              standard deviation stay those of the images before);
            - corrupt=F: draw a share F of the training labels at random, see `corrupt_labels`;
            - limit=N: keep N training images, the first of a random order (so that of two limits,
              the larger contains the smaller; corrupted labels stay the same ones);
            - seed=S: of `corrupt` and `limit`; 0 if not given;
            - group=N: every N training images in a row, of one class, belong together (the 30
              frames of a track of GTSRB), and a validation split keeps them so;

            beside the options of its own reader, such as download=true.
        root: The data folder, for those read from one; else $WEIGHTFOLD_DATA.

    Raises:
        ValueError: The spec, an option, or a file's content is wrong, or no data folder is known.
            Also if all training images are of one class, or a file or an option asks for more
            memory than `weightfold.data.budget` allows.
        FileNotFoundError: A folder or file is missing.
        ImportError: The reader needs an extra that is not installed.
    """
    name, texts = parse_spec(spec)
    if name not in readers():
        if "path" in texts:
            raise ValueError(
                f"spec={spec!r} gives two paths; begin with one, or with 'npz,path=...'"
            )
        name, texts["path"] = _layout_of(name), name
    reader = readers()[name]
    options: dict[str, Any] = read_options(name, texts, _COMMON | reader.options)
    own = {key: value for key, value in options.items() if key in reader.options}
    dataset = reader.read(None if root is None else Path(root), own)
    labels = dataset.train.labels
    if dataset.num_classes and labels is not None and len(labels.unique()) < 2:
        only = dataset.class_names[int(labels[0])]
        raise ValueError(
            f"{spec!r}: all {len(dataset.train)} training images are of one class ({only}); give "
            "images of at least two"
        )
    common = {key: value for key, value in options.items() if key not in reader.options}
    return _recorded(_apply(dataset, **common), options)


def _layout_of(path: str) -> str:
    """The reader for a path."""
    if path.endswith(".npz"):
        return "npz"
    if Path(path).expanduser().is_dir():
        return "folder"
    near = get_close_matches(path, readers(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"{path!r} is neither a data set nor a folder of images; {hint}"
        f"data sets: {', '.join(readers())}; or the path of a folder or .npz file"
    )


def _apply(
    dataset: Dataset,
    *,
    rgb: bool = False,
    size: int | None = None,
    corrupt: float | None = None,
    limit: int | None = None,
    seed: int = 0,
    group: int | None = None,
) -> Dataset:
    """The options that every data set takes."""
    train, test, record = dataset.train, dataset.test, dict(dataset.record)
    mean, std, groups = dataset.mean, dataset.std, dataset.groups
    if group is not None:
        if group < 1:
            raise ValueError(f"group={group} must be at least 1 image")
        groups = consecutive(_labels(train), group)
    if corrupt is not None:
        labels, changed = corrupt_labels(_labels(train), corrupt, dataset.num_classes, seed)
        train = _relabel(train, labels)
    else:
        changed = torch.zeros(len(train), dtype=torch.bool)
    if limit is not None:
        if not 0 < limit <= len(train):
            raise ValueError(f"limit={limit}; give 1 to {len(train)}, the training images")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:limit]
        train, changed = train.select(order), changed[order]
        groups = None if groups is None else groups[order]
    if corrupt is not None:
        record["labels_changed"] = int(changed.sum())
    if size is not None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 pixel")
        if _in_place(train.targets):
            raise ValueError(
                f"size={size}: the masks or boxes of {dataset.name!r} would stay as they are; give "
                "height and width, which its reader takes"
            )
        train, test = (_resize(part, size) for part in (train, test))
    if rgb and train.shape[0] == 1:
        train, test = (Examples(s.inputs.repeat(1, 3, 1, 1), s.targets) for s in (train, test))
        mean, std = mean * 3, std * 3
    return replace(
        dataset, train=train, test=test, mean=mean, std=std, record=record, groups=groups
    )


def _labels(examples: Examples) -> torch.Tensor:
    if examples.labels is None:
        raise ValueError("corrupt and group are for class labels; the targets are none")
    return examples.labels


def _in_place(targets: Any) -> bool:
    """Whether targets are masks or boxes, which belong to places in the image."""
    if isinstance(targets, torch.Tensor):
        return targets.dtype == torch.uint8 and targets.dim() == 3
    return isinstance(targets[0], dict) and "boxes" in targets[0]


def _relabel(examples: Examples, labels: torch.Tensor) -> Examples:
    if isinstance(examples, ImageFiles):
        return ImageFiles(examples.paths, labels, examples.size, examples.workers)
    return Examples(examples.inputs, labels)


def _resize(examples: Examples, size: int) -> Examples:
    channels, height, width = examples.shape
    scaled = min(len(examples), _AT_ONCE) * scaled_pixels(height, width, size)
    check_bytes(f"size={size}", channels * max(scaled, len(examples) * size**2))
    parts = [square(part, size) for part in examples.inputs.split(_AT_ONCE)]
    return Examples(torch.cat(parts), examples.targets)


def _recorded(dataset: Dataset, options: dict[str, Any]) -> Dataset:
    """The data set with its record complete."""
    record = {
        **dataset.record,
        "train": len(dataset.train),
        "test": len(dataset.test),
        "image_shape": list(dataset.train.shape),
        # A path would make two machines' records differ.
        **{key: value for key, value in options.items() if key not in ("path", "download")},
    }
    if record.keys() & {"corrupt", "limit"}:
        record.setdefault("seed", 0)
    return replace(dataset, record=record)
