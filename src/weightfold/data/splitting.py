"""Splitting off validation images."""

import torch
from torch import Tensor

from weightfold.data.dataset import ImageSet


def split(image_set: ImageSet, validation: int | float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split a set in two, every class in proportion.

    Each class gives its share of the validation images, rounded down; the images that are then
    missing come one each from the classes that lost most by rounding (of equals, the lower label).
    Which images of a class go is drawn with `seed`. Both parts keep the order of the set.

    Args:
        image_set: The images.
        validation: How many to split off (int), or which share of them (float, below 1).
        seed: Of the draw.

    Returns:
        (what remains, validation).

    Raises:
        ValueError: `validation` leaves one of the two empty.
    """
    total = len(image_set)
    size = round(validation * total) if isinstance(validation, float) else validation
    if not 0 < size < total:
        raise ValueError(
            f"validation={validation} splits {size} off {total} images; give a number of images "
            f"from 1 to {total - 1}, or a share between 0 and 1"
        )
    taken = _stratified(image_set.labels, size, torch.Generator().manual_seed(seed))
    return image_set.select((~taken).nonzero()[:, 0]), image_set.select(taken.nonzero()[:, 0])


def _stratified(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Mask of `size` images drawn in proportion to the classes; bool (N,)."""
    counts = labels.bincount()
    quota, lost = (counts * size).div(len(labels), rounding_mode="floor"), counts * size
    lost = lost - quota * len(labels)
    most = lost.argsort(descending=True, stable=True)[: size - int(quota.sum())]
    quota[most] += 1
    order = torch.randperm(len(labels), generator=generator)
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for label, wanted in enumerate(quota.tolist()):
        taken[order[labels[order] == label][:wanted]] = True
    return taken
