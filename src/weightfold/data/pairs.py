"""A data set of whatever a user has: pairs of tensors, or torch Datasets."""

from typing import Any

import torch
from torch import Tensor

from weightfold.data.dataset import Dataset, Examples

Data = Dataset | tuple[Any, Any]
"""What `as_dataset` takes."""


def as_dataset(data: Data) -> Dataset:
    """A data set of whatever a user has.

    Args:
        data: A `Dataset`, returned as it is; or a training and a held-out set, each `Examples`, a
            pair of tensors (inputs, targets) or a map-style torch Dataset of such pairs. Their
            inputs are taken as they are; targets that are int64 (N,) count as class labels.

    Raises:
        TypeError: It is something else.
        ValueError: As `Dataset` and `Examples` say.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        train, test = (_examples(part) for part in data)
        labels = [part.labels for part in (train, test)]
        highest = [int(label.max()) for label in labels if label is not None]
        return Dataset("data", train, test, max(highest) + 1 if len(highest) == 2 else 0)
    raise TypeError(
        f"data is a {type(data).__name__}; give a weightfold Dataset, a Task, or a pair (training "
        "set, held-out set) of torch Datasets or of (inputs, targets) tensors"
    )


def _examples(part: Any) -> Examples:
    if isinstance(part, Examples):
        return part
    if isinstance(part, tuple | list) and len(part) == 2 and isinstance(part[0], Tensor):
        return Examples(*part)
    if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
        raise TypeError(
            f"data has a {type(part).__name__}; give a map-style torch Dataset (with len() and "
            "[index]) or a pair of tensors (inputs, targets)"
        )
    pairs = [part[index] for index in range(len(part))]
    try:
        inputs = torch.stack([torch.as_tensor(x) for x, _ in pairs])
        targets = torch.stack([torch.as_tensor(y) for _, y in pairs])
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"data: items of the {type(part).__name__} are not (tensor, target) pairs of one "
            f"shape: {error}; add a transform that makes them so"
        ) from None
    return Examples(inputs, targets)
