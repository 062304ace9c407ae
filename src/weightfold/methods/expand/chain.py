"""A linear layer as a chain of linear layers (ExpandNets, Guo et al. 2020, section 3)."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightfold.core.slots import PlaceholderGuard, Slots, fill, with_placeholders
from weightfold.methods.expand.algebra import cheapest_order, fold_layers

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (*CONVOLUTIONS, nn.Linear)
GEOMETRY = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "in_features",
    "out_features",
)
"""Attributes that a chain has of its plain layer, for code around that reads them."""


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Put the layer's name into an error about it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"layer {path!r}: {error}") from None


def geometry(layer: Any) -> tuple[int, int, int, tuple[int, ...]]:
    """(in features, out features, groups, kernel) of a convolution or Linear."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, 1, ()
    return layer.in_channels, layer.out_channels, layer.groups, tuple(layer.kernel_size)


class Chain(nn.Sequential):
    """Factors of one layer, run one after another; a product of linear maps unless `nonlinear`.

    Args:
        factors: Convolutions of one class, groups and dilation, or Linears.
        plain: The layer that the chain folds to; its class, geometry and padding count, its
            weights do not.
        nonlinear: Put a ReLU after every factor but the last: the nonlinear twin, which does not
            fold.

    Attributes:
        exact: Whether the chain computes all that the plain layer does: that one is no subclass
            with a forward of its own, and keeps no bias outside the chain.

    Raises:
        ValueError: A factor after the first pads, or one before the last kernel strides: the chain
            would be no single layer.
    """

    def __init__(self, factors: Sequence[Any], plain: Any, nonlinear: bool = False) -> None:
        super().__init__(*factors)
        self.nonlinear = nonlinear
        self._order = cheapest_order([factor.weight for factor in factors])
        self.exact = type(plain) in LAYERS and (plain.bias is None) == (factors[0].bias is None)
        self._plain = (
            with_placeholders(plain, [n for n, _ in plain.named_parameters(recurse=False)]),
        )
        for name in GEOMETRY:
            if hasattr(plain, name):
                setattr(self, name, getattr(plain, name))
        self.pad: tuple[int, ...] | None = None
        if not isinstance(plain, CONVOLUTIONS):
            return
        for index, factor in enumerate(factors):
            pads = factor.padding if index else 0
            if pads not in (0, (0,) * len(factor.kernel_size), "valid"):
                raise ValueError(
                    f"factor {index} of the chain has padding={pads}; only the first factor may "
                    "pad, later padding sees biases and is not exactly one layer"
                )
            later = [k for f in factors[index + 1 :] for k in f.kernel_size]
            if max(factor.stride) > 1 and max(later, default=1) > 1:
                raise ValueError(
                    f"factor {index} of the chain has stride={factor.stride} before a larger "
                    "kernel; put the stride on the last factor with a kernel"
                )
        if plain.padding == "same":
            self.pad = tuple(plain._reversed_padding_repeated_twice)

    @property
    def plain(self) -> Any:
        """The layer this folds to; without weights of its own."""
        return self._plain[0]

    @property
    def weight(self) -> Tensor | None:
        """The folded weight, for code around that reads its dtype; None if there is none."""
        return None if self.nonlinear or self.factors[0].weight is None else self.fold()[0]

    @property
    def bias(self) -> Tensor | None:
        """The folded bias; None if there is none."""
        return None if self.nonlinear or self.factors[0].bias is None else self.fold()[1]

    @property
    def factors(self) -> list[Any]:
        """The factors, first layer first."""
        return list(self)

    def forward(self, input: Tensor) -> Tensor:
        """Run the factors one by one; the input is the plain layer's."""
        if self.pad is not None:
            mode = {"zeros": "constant"}.get(self.plain.padding_mode, self.plain.padding_mode)
            input = F.pad(input, self.pad, mode=mode)
        for index, factor in enumerate(self):
            input = factor(input)
            if self.nonlinear and index < len(self) - 1:
                input = F.relu(input)
        return input

    def fold(self) -> tuple[Tensor, Tensor | None]:
        """Weight (out, in / groups, *kernel) and bias (out,) of the product."""
        weights, biases = [f.weight for f in self.factors], [f.bias for f in self.factors]
        weight, bias = fold_layers(weights, biases, geometry(self.plain)[2], self._order)
        # flat and back: strides of an axis of one could make the model run in channels_last
        return weight.contiguous().flatten().view(weight.shape), bias

    def fuse(self) -> nn.Module:
        """The plain layer with folded weights, for tools that fuse modules (timm).

        The executor of a Charted net, which has no weights of its own, returns itself.

        Raises:
            RuntimeError: The chain has nonlinearities and is no single layer.
        """
        if self.nonlinear:
            raise RuntimeError("a nonlinear chain is no single layer; load it into its linear twin")
        if self.factors[0].weight is None:
            return self
        layer = copy.deepcopy(self.plain)
        with torch.no_grad():
            tensors = dict(zip(("weight", "bias"), self.fold(), strict=True))
        trainable = self.factors[0].weight.requires_grad
        folded = {n: nn.Parameter(t, trainable) for n, t in tensors.items() if t is not None}
        fill(layer, {n: (n,) for n in folded}, folded)
        return layer.train(self.training)


def kernels(kind: str, kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Kernel of every factor.

    "cl" is 1, k, 1. "ck" is l = (max k - 1) / 2 kernels of 3 on axes still short and 1 on the
    others (non-square kernels: our choice); where one factor of 3 would do, "ck" is "cl".

    Raises:
        ValueError: "ck" with an even kernel.
    """
    ones = (1,) * len(kernel)
    if kind == "ck" and any(k % 2 == 0 for k in kernel):
        raise ValueError(
            f'conv="ck" needs odd kernels, the layer has kernel_size={kernel}; use "cl" for it'
        )
    length = (max(kernel) - 1) // 2
    if kind == "cl" or length < 2:
        return [ones, kernel, ones]
    return [tuple(3 if i < (k - 1) // 2 else 1 for k in kernel) for i in range(length)]


def widths(layer: nn.Module, rate: float, factors: int, first: str = "rm") -> tuple[int, ...]:
    """Channels m, int(r m), int(r n), ..., n of a chain of that many factors (section 3.1).

    With groups the expansion is inside each group. `first="m"` keeps the first inner width at m.

    Raises:
        ValueError: The rate gives a group no channels.
    """
    m, n, groups, _ = geometry(layer)
    inner = [m] + [n] * (factors - 2)
    wide = [int(rate * c / groups + 1e-9) * groups for c in inner]
    if first == "m":
        wide[0] = m
    if min(wide) < 1:
        least = max(groups / c for c in (inner[1:] if first == "m" else inner))
        raise ValueError(
            f"rate={rate} gives a layer with {m} input and {n} output channels in {groups} "
            f"group(s) inner widths {wide}; use rate >= {ceil(1e4 * least) / 1e4}"
        )
    return (m, *wide, n)


def chains_bias(tensors: Mapping[str, Tensor], path: str) -> bool:
    """Whether the factors of layer `path` have biases; one frozen apart stays where it is.

    Args:
        tensors: Name -> parameter of the net.
        path: `path`.weight is the layer's weight.
    """
    bias = tensors.get(f"{path}.bias")
    return bias is not None and bias.requires_grad == tensors[f"{path}.weight"].requires_grad


def make_chain(layer: Any, channels: Sequence[int], kinds: str, bias: bool | None = None) -> Chain:
    """A chain for `layer` with torch's default initialisation, device and dtype.

    Args:
        layer: Conv1d, Conv2d, Conv3d or Linear.
        channels: Widths from input to output, one more than there are factors.
        kinds: "cl", "ck" or "fc".
        bias: Whether the factors have one; None: if the layer has.
    """
    pairs = list(pairwise(channels))
    bias = layer.bias is not None if bias is None else bias
    if isinstance(layer, nn.Linear):
        return Chain([nn.Linear(a, b, bias) for a, b in pairs], layer)
    sizes = kernels(kinds, layer.kernel_size)
    strided = 1 if len(sizes) == 3 and sizes[0] == (1,) * len(sizes[0]) else len(sizes) - 1
    convolution: Any = next(c for c in CONVOLUTIONS if isinstance(layer, c))
    factors = []
    for index, ((a, b), size) in enumerate(zip(pairs, sizes, strict=True)):
        pads = index == 0 and not isinstance(layer.padding, str)
        factors.append(
            convolution(
                a,
                b,
                size,
                stride=layer.stride if index == strided else 1,
                padding=layer.padding if pads else 0,
                dilation=layer.dilation,
                groups=layer.groups,
                bias=bias,
                padding_mode=layer.padding_mode,
            )
        )
    return Chain(factors, layer)


def obstacle(net: nn.Module, path: str, layer: Any) -> str | None:
    """Why a chain of modules cannot run in place of a layer of `net`, if it cannot.

    Args:
        net: A module or a Charted net.
        path: `path`.weight is the layer's weight in `net`.
        layer: The layer, of the plain model.
    """
    hooks = [
        *layer._forward_pre_hooks.values(),
        *layer._forward_hooks.values(),
        *layer._backward_pre_hooks.values(),
        *layer._backward_hooks.values(),
    ]
    slots = Slots.of(net)
    if type(layer) not in LAYERS:
        return f"{type(layer).__name__} may do more than its base class"
    if any(isinstance(hook, PlaceholderGuard) for hook in hooks):
        return "its weight or bias is computed by another chart"
    if hooks:
        return "it has hooks, which a chain in its place would not call"
    if layer.bias is not None and layer.bias.requires_grad != layer.weight.requires_grad:
        return "its bias is frozen, its weight is not, or the other way round"
    if len(slots.places[slots.canonical[f"{path}.weight"]]) > 1:
        return "its weight is tied to another layer's"
    return None
