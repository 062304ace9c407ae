"""Images that stay in their files until they are needed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from weightfold.data.dataset import ImageSet, check_labels
from weightfold.data.decode import MAX_PIXELS, decode


class ImageFiles(ImageSet):
    """An image set too large for memory: files, decoded to RGB when they are read.

    `weightfold.data.decode` says how. Each image is scaled so that its shorter side has `size`
    pixels, and its middle is taken. `images` decodes them all at once; `Batches` reads them
    through a torch DataLoader.

    Args:
        paths: One file an image.
        labels: int64 (N,).
        size: Height and width to bring the images to.
        workers: Processes that decode for `Batches`; 0 decodes in this one.

    Raises:
        ValueError: Not one label per path, `size` below 1 or of more pixels than an image may
            have, or `workers` negative.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, size: int, workers: int) -> None:
        check_labels(labels, len(paths))
        if size < 1 or workers < 0:
            raise ValueError(f"size={size} must be at least 1, and workers={workers} at least 0")
        if size**2 > MAX_PIXELS:
            raise ValueError(f"size={size} makes more than {MAX_PIXELS} pixels; give a smaller one")
        for name, value in (("paths", tuple(paths)), ("labels", labels)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "workers", workers)

    paths: tuple[Path, ...]
    size: int
    workers: int

    # A frozen field and a property are read alike.
    @property
    def images(self) -> Tensor:  # pyrefly: ignore[bad-override]
        """All images, decoded: uint8 (N, 3, size, size)."""
        with ThreadPoolExecutor() as pool:
            return torch.stack(list(pool.map(self._decode, range(len(self)))))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.size, self.size

    def select(self, index: Tensor) -> Self:
        """The images at `index`, int64 (M,), in its order."""
        paths = [self.paths[i] for i in index.tolist()]
        return type(self)(paths, self.labels[index], self.size, self.workers)

    def to(self, device: torch.device | str) -> Self:
        """The set with its labels, and the batches it reads, on `device`."""
        return type(self)(self.paths, self.labels.to(device), self.size, self.workers)

    def read(self, orders: Sequence[Tensor]) -> Iterator[Tensor]:
        """For each of `orders`, int64 (B,), the images there: uint8 (B, 3, size, size)."""
        device = self.labels.device
        loader = DataLoader(
            _Decoded(self),
            batch_sampler=[order.tolist() for order in orders],
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            # Without its own, the loader would draw a number from the global generator.
            generator=torch.Generator(),
        )
        for images in loader:
            yield images.to(device, non_blocking=True)

    def _decode(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            return decode(path, channels=3, size=self.size)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be decoded ({error}); replace or remove it") from error


class _Decoded(torch.utils.data.Dataset):
    """An ImageFiles as the DataLoader wants it."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files

    def __getitem__(self, index: int) -> Tensor:
        return self._files._decode(index)
