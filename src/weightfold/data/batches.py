"""Batches: the whole set on the device as it is, augmented and normalised a batch at a time."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from weightfold.data.dataset import Examples, scale_and_shift


class Augmentation(Protocol):
    """How training examples are varied: a frozen dataclass, part of what defines a run."""

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """What is drawn for each of so many images: (N, ...)."""
        ...

    def apply(self, images: Tensor, targets: Any, draws: Tensor) -> tuple[Tensor, Any]:
        """Images uint8 (B, C, H, W) and their targets, varied as `draws` (B, ...) says."""
        ...


@dataclass(frozen=True)
class Augment:
    """Random crop and flip, as usual for small images (and in the ExpandNets paper's code).

    Attributes:
        crop_padding: Pixels of black put around the image (before it is normalised), of which a
            random crop of the image's own size is taken; 0 for no crop.
        flip: Mirror left to right, every second image by chance.
    """

    crop_padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding={self.crop_padding} is negative; 0 means no crop")

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Row and column where the crop starts in the padded image, and 1 to flip; int64 (N, 3)."""
        corner = torch.randint(0, 2 * self.crop_padding + 1, (images, 2), generator=generator)
        flip = torch.randint(0, 1 + self.flip, (images, 1), generator=generator)
        return torch.cat([corner, flip], dim=1)

    def apply(self, images: Tensor, targets: Any, draws: Tensor) -> tuple[Tensor, Any]:
        """Crop and flip uint8 images (B, C, H, W) as `draws` (B, 3) says; targets stay."""
        batch, channels, height, width = images.shape
        pad = self.crop_padding
        padded = images.new_zeros(batch, channels, height + 2 * pad, width + 2 * pad)
        padded[:, :, pad : pad + height, pad : pad + width] = images
        rows = draws[:, :1] + torch.arange(height, device=images.device)
        columns = draws[:, 1:2] + torch.arange(width, device=images.device)
        columns = torch.where(draws[:, 2:] == 1, columns.flip(1), columns)
        # One gather of flat positions: of six ways tried, the fastest on a CPU.
        flat = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).view(batch, 1, -1)
        chosen = padded.flatten(2).gather(2, flat.expand(-1, channels, -1))
        return chosen.view(images.shape), targets


class Batches:
    """The batches of a set of examples, epoch by epoch.

    Args:
        examples: Those in memory move to `device` whole, as they are; those of an
            `ImageFiles` are decoded by worker processes as they are needed.
        batch_size: Images in a batch; the last one of an epoch may be smaller.
        mean: As in `Dataset`.
        std: As in `Dataset`.
        augment: How to vary the images, or None.
        seed: Of order and augmentation.
        device: Where the batches are wanted.
        drop_last: Leave out a last batch that is smaller.
        shuffle: False keeps the order of the set.

    Raises:
        ValueError: `batch_size` below 1, or above the number of images with `drop_last`; mean or
            std not one per channel.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augmentation | None,
        seed: int,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if drop_last and batch_size > len(examples):
            raise ValueError(
                f"batch_size={batch_size} with drop_last=True leaves no batch of the "
                f"{len(examples)} images; use a smaller one"
            )
        scale, shift = scale_and_shift(mean, std, examples.shape, examples.dtype)
        self._scale, self._shift = scale.to(device), shift.to(device)
        self._set, self._device = examples.to(device), torch.device(device)
        self._batch_size, self._augment, self._seed = batch_size, augment, seed
        self._drop_last, self._shuffle = drop_last, shuffle

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self._set), self._batch_size)
        return whole + (rest > 0 and not self._drop_last)

    def epoch(self, index: int, first: int = 0) -> Iterator[tuple[Tensor, Any]]:
        """The batches of epoch `index`, from its batch `first` on.

        Order and augmentation depend on (seed, index) only, and are the same on every device.

        Yields:
            Normalised inputs, float32 (B, ...), and targets: (B, ...), or a list of B.
        """
        generator = generator_of(self._seed, index)
        total, device = len(self._set), self._device
        order = torch.randperm(total, generator=generator) if self._shuffle else torch.arange(total)
        orders = order.to(device).split(self._batch_size)[first : len(self)]
        augment, draws = self._augment, ()
        if augment is not None:
            draws = augment.draw(total, generator).to(device).split(self._batch_size)[first:]
        for step, inputs in enumerate(self._set.read(orders)):
            targets = self._set.targets_at(orders[step])
            if augment is not None:
                inputs, targets = augment.apply(inputs, targets, draws[step])
            yield inputs.float().mul_(self._scale).sub_(self._shift), targets


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """A generator of its own for each (seed, epoch): of the order and the augmentation then."""
    mixed = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(mixed, "big"))
