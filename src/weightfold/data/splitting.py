"""Splitting off validation examples."""

from dataclasses import replace

import torch
from torch import Tensor

from weightfold.data.dataset import Dataset, Examples


def split(
    examples: Examples, validation: int | float, seed: int, groups: Tensor | None = None
) -> tuple[Examples, Examples]:
    """Split a set in two, every class in proportion.

    Each class gives its share of the validation images, rounded down; the images that are then
    missing come one each from the classes that lost most by rounding (of equals, the lower label).
    Which images of a class go is drawn with `seed`. Both parts keep the order of the set.

    Args:
        examples: Those that are not of class labels count as of one class.
        validation: How many to split off (int), or which share of them (float, below 1).
        seed: Of the draw.
        groups: int64 (N,): images with one number stay together. Groups are then drawn instead of
            images, a share of them that is nearest to the share of images asked for; a group counts
            for the class of its first image.

    Returns:
        (what remains, validation).

    Raises:
        ValueError: `validation` leaves one of the two empty.
    """
    total = len(examples)
    size = round(validation * total) if isinstance(validation, float) else validation
    if not 0 < size < total:
        raise ValueError(
            f"validation={validation} splits {size} off {total} images; give a number of images "
            f"from 1 to {total - 1}, or a share between 0 and 1"
        )
    generator = torch.Generator().manual_seed(seed)
    labels = examples.labels
    labels = torch.zeros(total, dtype=torch.int64) if labels is None else labels.cpu()
    if groups is None:
        taken = _stratified(labels, size, generator)
    else:
        taken = _whole_groups(labels, groups.cpu(), size, generator)
    return examples.select((~taken).nonzero()[:, 0]), examples.select(taken.nonzero()[:, 0])


def hold_out(dataset: Dataset, validation: int | float, seed: int) -> Dataset:
    """A data set with some of the training examples, see `split`, as its `validation`.

    Args:
        dataset: With its groups, if it has them.
        validation: How many (int), or which share (float, below 1).
        seed: Of the draw.

    Raises:
        ValueError: It has such a part already, or `validation` leaves one of the two empty.
    """
    if dataset.validation is not None:
        raise ValueError(
            f"validation={validation}, but {dataset.name} has validation examples of its own; "
            "give 0"
        )
    train, held_out = split(dataset.train, validation, seed, dataset.groups)
    record = {**dataset.record, "validation": len(held_out)}
    return replace(dataset, train=train, validation=held_out, groups=None, record=record)


def _whole_groups(labels: Tensor, groups: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Mask of about `size` images, whole groups; bool (N,)."""
    _, group = groups.unique(return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        raise ValueError("validation cannot be split off: all images are of one group")
    first = torch.full((count,), len(labels)).scatter_reduce(
        0, group, torch.arange(len(labels)), "amin"
    )
    wanted = min(max(round(size * count / len(labels)), 1), count - 1)
    return _stratified(labels[first], wanted, generator)[group]


def consecutive(labels: Tensor, length: int) -> Tensor:
    """Groups of `length` images in a row; int64 (N,).

    Counting starts anew where the label changes, so that a shorter group at the end of a class
    shifts no other class's.
    """
    _, runs = labels.unique_consecutive(return_counts=True)
    groups, offset = [], 0
    for run in runs.tolist():
        groups.append(offset + torch.arange(run) // length)
        offset += -(-run // length)
    return torch.cat(groups)


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
