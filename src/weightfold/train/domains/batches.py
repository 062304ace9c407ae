"""Batches of several domains: which of them a step trains on, and where each continues."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor

from weightfold.data import Batches
from weightfold.train.domains.joint import Joint
from weightfold.train.seeding import mixed_seed

Batch = dict[str, tuple[Tensor, Any]]
"""Domain -> inputs (B, ...) and targets."""


class DomainBatches:
    """The steps of an epoch, each with a batch of every domain it trains on.

    Which domains, and which images, depends on (seed, epoch) only. The first pass of an epoch over
    a domain is the one that domain would have if it were trained alone.

    Args:
        batches: Domain -> its batches.
        sizes: Domain -> its training examples.
        joint: The sampler and the length of an epoch.
        seed: Of the sampler.
        epochs: Epochs of the run.
    """

    def __init__(
        self,
        batches: Mapping[str, Batches],
        sizes: Mapping[str, int],
        joint: Joint,
        seed: int,
        epochs: int,
    ) -> None:
        self._batches, self._joint, self._seed, self._epochs = batches, joint, seed, epochs
        self._names = tuple(batches)
        exponent = 1 / (joint.temperature or 1)
        largest = max(sizes.values())
        self._chances = torch.tensor(
            [(sizes[name] / largest) ** exponent for name in self._names], dtype=torch.float64
        )

    def __len__(self) -> int:
        """Steps in an epoch."""
        joint = self._joint
        if isinstance(joint.epoch, int):
            return joint.epoch
        lengths = [len(batches) for batches in self._batches.values()]
        turns = min(lengths) if joint.epoch == "min" else max(lengths)
        return turns if joint.sampler == "all" else turns * len(self._names)

    def epoch(self, index: int, first: int = 0) -> Iterator[Batch]:
        """The batches of epoch `index`, from its step `first` on, domains in their order."""
        turns = self.turns(index)
        taken = {name: sum(name in names for names in turns[:first]) for name in self._names}
        streams = {name: self._stream(name, index, taken[name]) for name in self._names}
        for names in turns[first:]:
            yield {name: next(streams[name]) for name in names}

    def turns(self, index: int) -> list[tuple[str, ...]]:
        """The domains of each step of epoch `index`."""
        steps, names = len(self), self._names
        if self._joint.sampler == "all":
            return [names] * steps
        if self._joint.sampler == "round_robin":
            return [(names[(index * steps + step) % len(names)],) for step in range(steps)]
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, index, "domains"))
        drawn = torch.multinomial(self._chances, steps, replacement=True, generator=generator)
        return [(names[domain],) for domain in drawn.tolist()]

    def _stream(self, name: str, index: int, first: int) -> Iterator[tuple[Tensor, Any]]:
        """A domain's batches from the start of an epoch, or its batch `first`, pass after pass."""
        passes, first = divmod(first, len(self._batches[name]))
        for again in count(passes):
            yield from self._batches[name].epoch(index + again * self._epochs, first)
            first = 0
