"""What an embedding takes in memory, before any of it is there."""

import os
from dataclasses import dataclass
from math import prod

import torch

from weightfold.methods.embed.geometry import Geometry
from weightfold.methods.embed.layers import Space


@dataclass(frozen=True)
class EmbeddingSize:
    """Weights and bytes of a network's embedding; printed as a sentence.

    Attributes:
        space: Of the embedding.
        weights: In its embedded layers.
        others: Weights of the other layers, which stay.
        itemsize: Bytes of a weight.
        largest: Weights of the largest layer.
        activations: Values that embedded layers read and write, for one image.
    """

    space: str
    weights: int
    others: int
    itemsize: int
    largest: int
    activations: int

    @property
    def bytes(self) -> int:
        """Of the network."""
        return (self.weights + self.others) * self.itemsize

    def training(self, batch: int, states: int = 1, *, in_place: bool = False) -> int:
        """Bytes while training, about.

        Args:
            batch: Images in a step.
            states: Numbers kept for each weight beside it: its gradient, 1 with plain SGD, 3 with
                Adam.
            in_place: Whether weights are updated in the backward pass, without gradients.
        """
        kept = 0 if in_place else states
        return self.bytes * (1 + kept) + self.activations * batch * self.itemsize

    def __str__(self) -> str:
        return (
            f"{self.space}: {self.weights + self.others:,} weights, {amount(self.bytes)}; "
            f"while training {amount(self.training(0))} with SGD, {amount(self.training(0, 3))} "
            f"with Adam, {amount(self.training(0, in_place=True))} updated in place, and "
            f"{amount(self.activations * self.itemsize)} an image"
        )


def sizes(
    geometries: dict[str, Geometry], biases: dict[str, bool], others: int, dtype: torch.dtype,
    rank: int | None,
) -> dict[str, EmbeddingSize]:  # fmt: skip
    """Of each space, with local and low-rank layers where they are possible."""
    counts = {
        "dense": [prod(g.matrix_shape) for g in geometries.values()],
        "local": [prod(g.local_shape) for g in geometries.values()],
        "lowrank": [
            prod(g.kernel_shape) + (rank or 16) * sum(g.matrix_shape) for g in geometries.values()
        ],
        "shared": [prod(g.kernel_shape) for g in geometries.values()],
    }
    shared = {"lowrank", "shared"}
    found = {}
    for space, weights in counts.items():
        bias = [
            has and (g.out_channels if space in shared else prod(g.out_shape))
            for g, has in zip(geometries.values(), biases.values(), strict=True)
        ]
        values = sum(prod(g.padded) + prod(g.out_shape) for g in geometries.values())
        largest = max(weights, default=0)
        name = f"lowrank, rank {rank or 16}" if space == "lowrank" else space
        found[space] = EmbeddingSize(
            name, sum(weights) + sum(bias), others, dtype.itemsize, largest, values
        )
    return found


def check_fits(space: Space, found: dict[str, EmbeddingSize], device: torch.device) -> None:
    """Refuse an embedding that the device's memory cannot hold, and say what would fit.

    Raises:
        MemoryError: The weights take more than all of it.
    """
    there = memory(device)
    if there is None or found[space].bytes <= there:
        return
    rest = [size for name, size in found.items() if name != space and size.bytes <= there]
    raise MemoryError(
        f"space={space!r} does not fit the {amount(there)} of {device}. {found[space]}. "
        + (f"What fits: {'; '.join(map(str, rest))}" if rest else "Nothing else fits either")
    )


def memory(device: torch.device) -> int | None:
    """Bytes of memory of a device; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def amount(size: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} GB" if size >= 10 else f"{size:.1f} GB"
