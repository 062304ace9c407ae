"""Images with masks, decoded and brought to one size once, in memory."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from weightfold.data.budget import check_bytes
from weightfold.data.dataset import VOID, Dataset, Examples, mean_and_std
from weightfold.data.decode import decode, decode_mask

Pair = tuple[Path, Path]
"""An image and its mask."""


def scenes(
    name: str,
    parts: Mapping[str, Sequence[Pair]],
    class_names: Sequence[str],
    *,
    height: int | None,
    width: int | None,
    numbers: Mapping[int, int],
) -> Dataset:
    """A data set of images with masks.

    Args:
        name: Of the data set.
        parts: "train", "test" and perhaps "validation": the files.
        class_names: One a class.
        height: To bring images (bilinear) and masks (nearest) to; None: as they are.
        width: As `height`; given with it.
        numbers: Number in a mask -> class, or `VOID`. Others are refused.

    Raises:
        ValueError: An image or mask that cannot be decoded, a mask of another size than its image
            or with other numbers, images of several sizes without `height` and `width`; each names
            the file. Or one of the two is missing or below 1, or it all asks for too much memory.
    """
    if (height is None) != (width is None) or min(height or 1, width or 1) < 1:
        raise ValueError(f"height={height}, width={width}: give both, at least 1, or neither")
    size = None if height is None or width is None else (height, width)
    first, _ = next(iter(parts.values()))[0]
    frame = size or tuple(decoded(first, lambda path: decode(path, channels=3)).shape[1:])
    count = sum(map(len, parts.values()))
    check_bytes(f"{name} at height={frame[0]}, width={frame[1]}", 4 * count * frame[0] * frame[1])
    table = np.full(256, -1, dtype=np.int16)
    table[list(numbers)] = list(numbers.values())
    examples = {}
    for part, pairs in parts.items():
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda pair: _pair(pair, frame, bool(size), table), pairs))
        images, masks = (torch.stack(column) for column in zip(*found, strict=True))
        examples[part] = Examples(images, masks)
    mean, std = mean_and_std(examples["train"])
    record = {"source": ", ".join(f"{part}: {len(pairs)}" for part, pairs in parts.items())}
    return Dataset(
        name,
        examples["train"],
        examples["test"],
        len(class_names),
        mean,
        std,
        tuple(class_names),
        record,
        validation=examples.get("validation"),
    )


def _pair(
    pair: Pair, frame: tuple[int, ...], scaled: bool, table: np.ndarray
) -> tuple[Tensor, Tensor]:
    """uint8 image (3, H, W) and mask (H, W) of classes."""
    file, mask_file = pair
    image = decoded(file, lambda path: decode(path, channels=3))
    mask = decoded(mask_file, decode_mask)
    if mask.shape != image.shape[1:]:
        raise ValueError(
            f"{mask_file} has {_pixels(mask)} pixels, its image {file} {_pixels(image)}; make them "
            "alike"
        )
    if not scaled and tuple(mask.shape) != frame:
        raise ValueError(
            f"{file} has {_pixels(image)} pixels, others {frame[0]} x {frame[1]}; give height and "
            "width"
        )
    classes = table[mask.numpy()]
    if (classes < 0).any():
        others = sorted(set(mask.unique().tolist()) - set((table >= 0).nonzero()[0].tolist()))
        raise ValueError(
            f"{mask_file} has the values {', '.join(map(str, others[:5]))}, which are no class; "
            f"known are {', '.join(map(str, (table >= 0).nonzero()[0][:40]))}"
        )
    mask = torch.from_numpy(classes.astype(np.uint8))
    if scaled and tuple(mask.shape) != frame:
        image = transforms.resize(image, list(frame), antialias=True)
        mask = transforms.resize(mask[None], list(frame), InterpolationMode.NEAREST_EXACT)[0]
    return image, mask


def decoded(path: Path, read: Callable[[Path], Tensor]) -> Tensor:
    """What `read` gives of a file.

    Raises:
        ValueError: It cannot be decoded; the file is named.
    """
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be decoded ({error}); replace or remove it") from error


def _pixels(image: Tensor) -> str:
    return f"{image.shape[-2]} x {image.shape[-1]}"


def known(classes: int, void: int = VOID) -> dict[int, int]:
    """Numbers in a mask that are the classes themselves; `void` and 255 are void."""
    return {**{label: label for label in range(classes)}, VOID: VOID, void: VOID}
