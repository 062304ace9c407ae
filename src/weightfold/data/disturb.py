"""Noise in place of labels or inputs, to see what a network does with what it cannot understand.

The conditions of Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep learning requires
rethinking generalization" (2017), section 2, and of Arpit et al., "A closer look at memorization in
deep networks" (2017), section 2, who also disturb a fraction of the training set.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from weightfold.data.corruption import corrupt_labels
from weightfold.data.dataset import Dataset, Examples

CONDITIONS = ("true", "random-labels", "shuffled-pixels", "random-pixels", "gaussian")
"""true: the data as it is; the others as the functions of this module of these names, gaussian
being `gaussian_inputs`."""

IN_PART = ("random-labels", "random-pixels", "gaussian")
"""Conditions that a fraction of the training set can be put into."""

_CHUNK = 1000


def disturb(samples: Dataset, condition: str, *, fraction: float = 1.0, seed: int = 0) -> Dataset:
    """The data under a condition; the same seed gives the same data.

    Args:
        samples: Left as they are.
        condition: One of `CONDITIONS`.
        fraction: Of the training set; 1 for those that are not `IN_PART`.
        seed: From 0 to 2**32 - 1.

    Returns:
        The samples; `record["disturbed"]` lists, for each disturbance so far, condition, fraction,
        seed, and how many training labels ("labels_changed") and inputs ("inputs_changed") are
        others than before.

    Raises:
        ValueError: No such condition, or `fraction` or `seed` is out of range.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition={condition!r}; give one of {', '.join(CONDITIONS)}")
    if condition not in IN_PART and fraction != 1:
        raise ValueError(
            f"fraction={fraction} with condition={condition!r}, which is of the whole set; give 1, "
            f"or one of {', '.join(IN_PART)}"
        )
    if condition == "true":
        return samples
    if condition == "shuffled-pixels":
        return shuffled_pixels(samples, seed=seed)
    return _PARTIAL[condition](samples, fraction=fraction, seed=seed)


def random_labels(samples: Dataset, *, fraction: float = 1.0, seed: int = 0) -> Dataset:
    """Training labels drawn anew with probability `fraction`, see `corrupt_labels`.

    They are drawn from all classes, their own included. Labels of other parts stay true, so that
    the accuracy there tells what was learnt about the data.

    Raises:
        ValueError: As `corrupt_labels` says.
    """
    y, _ = corrupt_labels(samples.train.targets, fraction, samples.num_classes, seed)
    return _disturbed(samples, samples.train.inputs, y, "random-labels", fraction, seed)


def shuffled_pixels(samples: Dataset, *, seed: int = 0) -> Dataset:
    """One random permutation of the pixels of all inputs, in every part.

    Inputs of three or more dimensions (C, H, W) keep their channels: a pixel moves with all of
    them. Of inputs with fewer dimensions every value is a pixel.
    """
    order = torch.randperm(_pixels(samples.train.inputs[:1]).shape[2], generator=_generator(seed))
    parts: dict[str, Any] = {name: _permuted(part, order) for name, part in samples.parts.items()}
    return _recorded(samples, replace(samples, **parts), "shuffled-pixels", 1.0, seed)


def random_pixels(samples: Dataset, *, fraction: float = 1.0, seed: int = 0) -> Dataset:
    """A random permutation of its own for each of `fraction` of the training inputs.

    Pixels are as in `shuffled_pixels`; other parts stay as they are.

    Raises:
        ValueError: `fraction` is not from 0 to 1.
    """
    generator = _generator(seed)

    def permuted(x: Tensor) -> Tensor:
        pixels = _pixels(x)
        keys = torch.rand(len(x), 1, pixels.shape[2], generator=generator)
        order = keys.argsort(dim=2).to(x.device).expand_as(pixels)
        return pixels.gather(2, order).view_as(x)

    return _replaced(samples, permuted, generator, "random-pixels", fraction, seed)


def gaussian_inputs(samples: Dataset, *, fraction: float = 1.0, seed: int = 0) -> Dataset:
    """Gaussian noise in place of `fraction` of the training inputs.

    Independent values with the mean and standard deviation of the training inputs: of each channel
    for inputs of three or more dimensions (C, H, W), else of all values. For uint8 inputs they are
    rounded and clipped to 0..255, which moves both a little. Other parts stay as they are.

    Raises:
        ValueError: `fraction` is not from 0 to 1.
    """
    generator = _generator(seed)
    mean, std = _moments(samples.train.inputs)

    def drawn(x: Tensor) -> Tensor:
        shape = _pixels(x).shape
        noise = torch.randn(shape, generator=generator, dtype=torch.float64) * std + mean
        if x.dtype == torch.uint8:
            noise = noise.round().clamp(0, 255)
        return noise.to(x.device, x.dtype).view_as(x)

    return _replaced(samples, drawn, generator, "gaussian", fraction, seed)


_PARTIAL: dict[str, Callable[..., Dataset]] = {
    "random-labels": random_labels,
    "random-pixels": random_pixels,
    "gaussian": gaussian_inputs,
}


def _replaced(
    samples: Dataset,
    noise: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    condition: str,
    fraction: float,
    seed: int,
) -> Dataset:
    """With `noise` of them in place of a fraction of the training inputs, drawn at random."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction} of {condition}; give 0 to 1")
    x = samples.train.inputs.clone()
    order = torch.randperm(len(x), generator=generator).to(x.device)
    for index in order[: round(fraction * len(x))].split(_CHUNK):
        x[index] = noise(x[index])
    return _disturbed(samples, x, samples.train.targets, condition, fraction, seed)


def _disturbed(
    samples: Dataset, x: Tensor, y: Tensor, condition: str, fraction: float, seed: int
) -> Dataset:
    disturbed = replace(samples, train=Examples(x, y))
    return _recorded(samples, disturbed, condition, fraction, seed)


def _permuted(part: Examples, order: Tensor) -> Examples:
    pixels = _pixels(part.inputs)[:, :, order.to(part.inputs.device)]
    return Examples(pixels.view_as(part.inputs), part.targets)


def _recorded(
    before: Dataset, after: Dataset, condition: str, fraction: float, seed: int
) -> Dataset:
    entry = {
        "condition": condition,
        "fraction": fraction,
        "seed": seed,
        "labels_changed": int((after.train.targets != before.train.targets).sum()),
        "inputs_changed": int(
            (after.train.inputs != before.train.inputs).flatten(1).any(dim=1).sum()
        ),
    }
    record = {**before.record, "disturbed": [*before.record.get("disturbed", []), entry]}
    return replace(after, record=record)


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}; give 0 to 2**32 - 1")
    return torch.Generator().manual_seed(seed)


def _pixels(x: Tensor) -> Tensor:
    """(N, channels, pixels): inputs of fewer than three dimensions have one channel."""
    return x.flatten(2) if x.dim() > 3 else x.reshape(len(x), 1, prod(x.shape[1:]))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, float64 (channels, 1)."""
    pixels = _pixels(x)
    sums = torch.zeros(2, pixels.shape[1], 1, dtype=torch.float64)
    count = pixels.shape[0] * pixels.shape[2]
    for chunk in pixels.split(_CHUNK):
        sums[0] += chunk.double().sum(dim=(0, 2)).cpu()[:, None]
    mean = sums[0] / count
    for chunk in pixels.split(_CHUNK):
        deviations = chunk.double() - mean.to(chunk.device)
        sums[1] += deviations.square().sum(dim=(0, 2)).cpu()[:, None]
    return mean, (sums[1] / count).sqrt()
