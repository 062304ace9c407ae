"""Walks over the filters of a network: which ones a number or a budget takes."""

import difflib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from weightfold.methods.share.layers import Layer

Strategy = Literal["bottom", "top", "random"]
Masks = Mapping[str, Sequence[bool] | Tensor]
Own = dict[str, tuple[bool, ...]]


def take_filters(layers: Sequence[Layer], strategy: Strategy, seed: int, number: int) -> Own:
    """The first `number` filters of the walk.

    Raises:
        ValueError: There are fewer, or `number` is negative.
    """
    order = _walk(layers, strategy, seed)
    if not 0 <= number <= len(order):
        raise ValueError(
            f"num_filters={number}; the convolutions have {len(order):,} filters, the classifier "
            "apart"
        )
    return _masks(layers, order[:number])


def take_share(
    layers: Sequence[Layer],
    strategy: Strategy,
    seed: int,
    fraction: float,
    budget: Literal["weights", "macs"],
) -> Own:
    """The most filters from the start of the walk that together stay within the budget.

    Raises:
        ValueError: The share is positive but smaller than the first filter of the walk.
    """
    order = _walk(layers, strategy, seed)
    attribute = {"weights": "weights_per_filter", "macs": "macs_per_filter"}[budget]
    costs = _per_filter(layers, [getattr(layer, attribute) for layer in layers])
    # Fraction(str()) reads 0.29 as 29/100, where the binary number is a little less.
    affordable = math.floor(Fraction(str(fraction)) * int(costs.sum()))
    walked = costs[order].cumsum(0)
    number = int((walked <= affordable).sum())
    if fraction > 0 and number == 0:
        first = int(walked[0])
        raise ValueError(
            f"fraction={fraction} is {affordable:,} of {int(costs.sum()):,} {budget}, less than "
            f"the first filter of the walk, which takes {first:,}; use 0 or at least "
            f"{first / int(costs.sum()):.2g}"
        )
    return _masks(layers, order[:number])


def given_masks(layers: Sequence[Layer], masks: Masks) -> Own:
    """Masks of the user's, checked, without the empty ones.

    Raises:
        ValueError: A path is no convolution of the walk, or a mask has another length.
        TypeError: A mask has another type than bool.
    """
    filters = {layer.path: layer.filters for layer in layers}
    given = {path: torch.as_tensor(mask, device="cpu") for path, mask in masks.items()}
    for path, mask in given.items():
        if path not in filters:
            near = difflib.get_close_matches(path, filters, n=3) or list(filters)[:5]
            raise ValueError(
                f"the mask of {path!r} is for no convolution that can be shared; there are "
                f"{', '.join(near)}"
            )
        if mask.dtype != torch.bool:
            raise TypeError(f"the mask of {path!r} is not of type bool; give True for own filters")
        if mask.shape != (filters[path],):
            raise ValueError(
                f"the mask of {path!r} has shape {tuple(mask.shape)}; the layer "
                f"has {filters[path]} filters"
            )
    rows = {path: given[path] for path in filters if path in given}
    return {path: tuple(mask.tolist()) for path, mask in rows.items() if mask.any()}


def ranges_of(mask: Sequence[bool]) -> list[list[int]]:
    """The runs of True as [start, stop)."""
    edges = [
        i for i, (a, b) in enumerate(zip([False, *mask], [*mask, False], strict=True)) if a != b
    ]
    return [edges[i : i + 2] for i in range(0, len(edges), 2)]


def mask_of(ranges: Sequence[Sequence[int]], filters: int) -> tuple[bool, ...]:
    """The mask whose `ranges_of` are these.

    Raises:
        ValueError: The ranges do not rise, or exceed the filters.
    """
    mask, end = [False] * filters, -1
    for start, stop in ranges:
        if not end < start < stop <= filters:
            raise ValueError(f"{ranges} are no rising ranges within {filters} filters")
        mask[start:stop], end = [True] * (stop - start), stop
    return tuple(mask)


def _walk(layers: Sequence[Layer], strategy: Strategy, seed: int) -> Tensor:
    """Positions of all filters, counted in execution order, in the order of the walk; int64."""
    total = sum(layer.filters for layer in layers)
    if strategy == "random":
        return torch.randperm(total, generator=torch.Generator().manual_seed(seed), device="cpu")
    order = torch.arange(total, device="cpu")  # also where another device is the default
    return order if strategy == "bottom" else order.flip(0)


def _per_filter(layers: Sequence[Layer], values: Sequence[int]) -> Tensor:
    """A layer's value for each of its filters, int64."""
    filters = torch.tensor([layer.filters for layer in layers], device="cpu")
    return torch.tensor(values, device="cpu").repeat_interleave(filters)


def _masks(layers: Sequence[Layer], taken: Tensor) -> Own:
    sizes = [layer.filters for layer in layers]
    mask = torch.zeros(sum(sizes), dtype=torch.bool, device="cpu")
    mask[taken] = True
    rows = zip(layers, mask.split(sizes), strict=True)
    return {layer.path: tuple(row.tolist()) for layer, row in rows if row.any()}
