"""Magnitude pruning as functions of tensors; they know no network and no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from weightfold.core.select import Where, select, select_tensors
from weightfold.core.slots import split_name

Masks = dict[str, Tensor]
"""Tensor name -> bool mask of the tensor's shape, True where the weight survives."""

Scope = Literal["layer", "global"]
Method = Literal["iterative", "one-shot"]


@dataclass(frozen=True)
class Pruning:
    """How weights are pruned, level by level.

    Attributes:
        fraction: Share of the surviving weights that a level prunes, in (0, 1).
        method: "iterative": each level prunes what the last left, after it was trained; "one-shot":
            each prunes the trained full network, down to the same share in one go.
        scope: "layer": that share of each tensor; "global": of all tensors jointly.
        fractions: Tensor name -> its own share in place of `fraction`; with scope="layer".

    Raises:
        ValueError: A value is out of range, or `fractions` is given with scope="global".
    """

    fraction: float = 0.2
    method: Method = "iterative"
    scope: Scope = "layer"
    fractions: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in ("iterative", "one-shot"):
            raise ValueError(f"method={self.method!r}: give 'iterative' or 'one-shot'")
        for name, value in {"fraction": self.fraction, **self.fractions}.items():
            if not 0 < value < 1:
                raise ValueError(f"{name}={value}: give the share a level prunes, in (0, 1)")
        _check_scope(self.scope, self.fractions)

    def masks(
        self, level: int, weights: Mapping[str, Tensor], before: Mapping[str, Tensor]
    ) -> Masks:
        """The masks of a level.

        Args:
            level: From 1.
            weights: Tensor name -> trained weights: one-shot, of the full network; iterative, of
                the network of the level before.
            before: Masks of the level before.
        """
        if self.method == "iterative":
            return magnitude_masks(
                weights, before, self.fraction, scope=self.scope, fractions=self.fractions
            )
        return magnitude_masks(
            weights,
            full_masks(weights),
            1 - (1 - self.fraction) ** level,
            scope=self.scope,
            fractions={name: 1 - (1 - f) ** level for name, f in self.fractions.items()},
        )


def prunable(net: nn.Module, where: Where = None) -> dict[str, nn.Parameter]:
    """The tensors of a network that are pruned.

    Args:
        net: A plain module.
        where: As of `select_tensors`; None: the weights of Linear layers and convolutions, never
            biases or batch norms.

    Raises:
        ValueError: Nothing is chosen.
    """
    if where is not None:
        return select_tensors(net, where)
    layers = (nn.Linear, nn.modules.conv._ConvNd)

    def is_weight(name: str, tensor: Tensor) -> bool:
        return tensor.dim() > 1 and isinstance(net.get_submodule(split_name(name)[0]), layers)

    names = [n for n, p in net.named_parameters() if p.requires_grad and is_weight(n, p)]
    if not names:
        raise ValueError(
            "the network has no trainable weight of a Linear layer or a convolution to prune; "
            "choose tensors with where="
        )
    return select_tensors(net, names)


def full_masks(weights: Mapping[str, Tensor]) -> Masks:
    """Masks under which every weight survives."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


def surviving(masks: Mapping[str, Tensor]) -> int:
    """How many weights survive, over all tensors."""
    return sum(int(mask.sum()) for mask in masks.values())


def share(masks: Mapping[str, Tensor]) -> float:
    """Share of the weights that survive, over all tensors."""
    return surviving(masks) / sum(mask.numel() for mask in masks.values())


def magnitude_masks(
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    fraction: float,
    *,
    scope: Scope = "layer",
    fractions: Mapping[str, float] = MappingProxyType({}),
) -> Masks:
    """Prune the smallest of the surviving weights (Frankle and Carbin 2019, section 2).

    Of n surviving weights exactly round(fraction * n) are pruned, halves to even; of equal
    magnitudes the one that comes first in the tensor, and in the order of the tensors, goes first.

    Args:
        weights: Tensor name -> weights, floating point, any shape.
        masks: The same names -> bool masks so far.
        fraction: Share to prune of those that survive so far, in [0, 1].
        scope: "layer": that share of each tensor; "global": of all tensors jointly.
        fractions: Tensor name -> its own share in place of `fraction`; with scope="layer".

    Returns:
        New masks; those given are left unchanged.

    Raises:
        ValueError: A share is out of [0, 1], a name is unknown, shapes differ, a surviving weight
            is NaN, or `fractions` is given with scope="global".
    """
    _check_scope(scope, fractions)
    for name in fractions:
        if name not in weights:
            raise ValueError(f"fractions: {name!r} is none of {', '.join(weights)}")
    for name, value in {"fraction": fraction, **fractions}.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: a share to prune lies in [0, 1]")
    for name, weight in weights.items():
        if name not in masks or masks[name].shape != weight.shape:
            raise ValueError(f"masks: give for {name!r} a mask of shape {tuple(weight.shape)}")
        if weight[masks[name]].isnan().any():
            raise ValueError(f"weights[{name!r}] has NaN among its surviving weights")
    if scope == "layer":
        shares = dict.fromkeys(weights, fraction) | dict(fractions)
        return {
            n: _pruned(w.flatten(), masks[n].flatten(), shares[n]).view_as(w)
            for n, w in weights.items()
        }
    flat = torch.cat([w.flatten() for w in weights.values()])
    alive = torch.cat([masks[name].flatten() for name in weights])
    parts = _pruned(flat, alive, fraction).split([w.numel() for w in weights.values()])
    return {n: part.view_as(w) for (n, w), part in zip(weights.items(), parts, strict=True)}


def own_shares(
    weights: Mapping[str, Tensor], fractions: Mapping[str, float] | Sequence[str]
) -> dict[str, float]:
    """Tensor name -> its own share to prune.

    Args:
        weights: Tensor name -> what is pruned.
        fractions: Name or glob -> share, the last that matches counts; or texts "fc3.weight:0.1".

    Raises:
        ValueError: A name matches no tensor that is pruned, or a text is of another form.
    """
    if not isinstance(fractions, Mapping):
        fractions = dict(_read_share(text) for text in fractions)
    found: dict[str, float] = {}
    for pattern, value in fractions.items():
        found |= dict.fromkeys(select(weights, pattern, what="tensor that is pruned"), value)
    return found


def _read_share(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition(":")
    try:
        return name, float(value)
    except ValueError:
        raise ValueError(
            f"fractions has the item {text!r}; give texts like 'fc3.weight:0.1'"
        ) from None


def _check_scope(scope: Scope, fractions: Mapping[str, float]) -> None:
    if scope not in ("layer", "global"):
        raise ValueError(f"scope={scope!r}: give 'layer' or 'global'")
    if fractions and scope == "global":
        raise ValueError("fractions are shares of single tensors; leave them out, or scope='layer'")


def random_masks(masks: Mapping[str, Tensor], seed: int) -> Masks:
    """Masks with as many survivors in each tensor, at random places.

    Args:
        masks: Bool masks; left unchanged.
        seed: Of the places, drawn on the CPU so that they are the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, mask in masks.items():
        places = torch.randperm(mask.numel(), generator=generator)[: int(mask.sum())]
        flat = torch.zeros(mask.numel(), dtype=torch.bool)
        flat[places] = True
        drawn[name] = flat.view(mask.shape).to(mask.device)
    return drawn


def _pruned(weights: Tensor, alive: Tensor, fraction: float) -> Tensor:
    """`alive`, (n,), without round(fraction * alive) of the smallest |weights|, (n,)."""
    places = alive.nonzero()[:, 0]
    order = weights[places].abs().sort(stable=True).indices
    alive = alive.clone()
    alive[places[order[: round(fraction * len(places))]]] = False
    return alive
