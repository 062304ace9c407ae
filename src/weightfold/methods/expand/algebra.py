"""Composition of linear layers in weight space: exact for any kernel, groups and dilation.

A layer's weight has shape (out, in / groups, *kernel); a Linear's kernel has no axes. All layers
of a chain share their groups and dilation; strides and padding do not enter the composition (the
padding stands on the first layer; a stride stands on the last layer with a kernel).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

Shape = tuple[int, ...]
Order = int | tuple


def compose(second: Tensor, first: Tensor, groups: int = 1) -> Tensor:
    """Weight of the layer `second` after the layer `first`.

    Args:
        second: (out, mid / groups, *k2).
        first: (mid, in / groups, *k1).
        groups: Groups of both.

    Returns:
        (out, in / groups, *(k1 + k2 - 1)); Eq. 2 and 3 of Guo et al. 2020 for two factors.
    """
    out, mid, inner = second.shape[0] // groups, second.shape[1], first.shape[1]
    kernel = [a + b - 1 for a, b in zip(second.shape[2:], first.shape[2:], strict=True)]
    if prod(second.shape[2:]) == 1:
        left, right = second.flatten(1), first.flatten(1)
        if groups == 1:
            product = left @ right
        else:
            product = left.view(groups, out, mid) @ right.view(groups, mid, -1)
        return product.view(groups * out, inner, *kernel)
    if prod(first.shape[2:]) > 1:
        return _compose_kernels(second, first, groups, kernel)
    # A product for each output, over its taps as they lie: nothing large is laid out anew.
    mixed = first.flatten(1).view(groups, 1, mid, inner).transpose(2, 3)
    each = mixed.expand(-1, out, -1, -1).flatten(0, 1)
    return torch.bmm(each, second.flatten(2)).view(groups * out, inner, *kernel)


def _compose_kernels(second: Tensor, first: Tensor, groups: int, kernel: list[int]) -> Tensor:
    """Full convolution of two kernels, as the transposed convolution of `first` by `second`."""
    out, mid = second.shape[0] // groups, second.shape[1]
    k2 = second.shape[2:]
    transposed = second.reshape(groups, out, mid, *k2).transpose(1, 2)
    run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(k2) - 1]
    full = run(first.transpose(0, 1), transposed.reshape(groups * mid, out, *k2), groups=groups)
    return full.transpose(0, 1).reshape(groups * out, first.shape[1], *kernel)


def compose_macs(second: Shape, first: Shape) -> int:
    """Multiply-adds of `compose` for weights of these shapes."""
    return second[0] * second[1] * first[1] * prod(second[2:]) * prod(first[2:])


LISTED = 6
"""Factors up to which all orders are listed: of n there are 4^n or so."""


@lru_cache(maxsize=4096)
def orders(shapes: tuple[Shape, ...], start: int = 0) -> tuple[tuple[int, Order, Shape], ...]:
    """Every order in which a chain can be composed, cheapest first; of a long chain that alone.

    Args:
        shapes: Weight shapes, first layer first.
        start: Index of the first factor in the order's notation.

    Returns:
        For each order its multiply-adds, the order as nested pairs of factor indices, e.g.
        ((0, 1), 2), and the shape of the product.
    """
    if len(shapes) == 1:
        return ((0, start, shapes[0]),)
    found = []
    listed = len(shapes) <= LISTED
    for cut in range(1, len(shapes)):
        for cost_a, order_a, a in orders(shapes[:cut], start)[: None if listed else 1]:
            for cost_b, order_b, b in orders(shapes[cut:], start + cut)[: None if listed else 1]:
                kernel = tuple(x + y - 1 for x, y in zip(a[2:], b[2:], strict=True))
                cost = cost_a + cost_b + compose_macs(b, a)
                found.append((cost, (order_a, order_b), (b[0], a[1], *kernel)))
    found.sort(key=lambda order: order[0])
    return tuple(found[: None if listed else 1])


def fold_weights(weights: Sequence[Tensor], groups: int = 1, order: Order | None = None) -> Tensor:
    """Weight of a chain of layers.

    Args:
        weights: First layer first, each (out, in / groups, *kernel).
        groups: Groups of every layer.
        order: In which to compose, as `orders` writes it; None: the cheapest.
    """

    def run(order: Order) -> Tensor:
        if isinstance(order, int):
            return weights[order]
        return compose(run(order[1]), run(order[0]), groups)

    return run(cheapest_order(weights) if order is None else order)


def cheapest_order(weights: Sequence[Tensor]) -> Order:
    """The order of fewest multiply-adds in which to compose these weights."""
    return orders(tuple(tuple(w.shape) for w in weights))[0][1]


def fold_biases(
    weights: Sequence[Tensor], biases: Sequence[Tensor | None], groups: int = 1
) -> Tensor | None:
    """Bias of a chain: each layer sees the bias so far as a constant image; padding comes first.

    Args:
        weights: First layer first, each (out, in / groups, *kernel).
        biases: (out,) or None, one per layer.
        groups: Groups of every layer.

    Returns:
        (out,) of the last layer, or None where no layer has a bias.
    """
    total: Tensor | None = biases[0]
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        if total is not None:
            taps = weight.flatten(1) if prod(weight.shape[2:]) == 1 else weight.flatten(2).sum(-1)
            if groups == 1:
                total = taps @ total if bias is None else torch.addmv(bias, taps, total)
            else:
                blocks = taps.view(groups, -1, taps.shape[1])
                total = (blocks @ total.view(groups, -1, 1)).flatten()
                total = total if bias is None else total + bias
        else:
            total = bias
    return total


def fold_layers(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    groups: int = 1,
    order: Order | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a chain; `fold_weights` and `fold_biases` in one pass.

    Through a first layer of kernel 1 its bias rides along as one more input channel, so that large
    middle weights are read once.
    """
    first, bias = weights[0], biases[0]
    if bias is None or prod(first.shape[2:]) > 1:
        return fold_weights(weights, groups, order), fold_biases(weights, biases, groups)
    inputs = first.shape[1]
    column = bias.view(-1, *[1] * (first.dim() - 1))
    product = fold_weights([torch.cat([first, column], 1), *weights[1:]], groups, order)
    rest = fold_biases(weights, [None, *biases[1:]], groups)
    weight, last = product.view(len(product), inputs + 1, -1).split([inputs, 1], 1)
    weight, total = weight.contiguous().view(-1, inputs, *product.shape[2:]), last.sum((1, 2))
    return weight, total if rest is None else total + rest
