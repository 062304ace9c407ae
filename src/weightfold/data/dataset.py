"""What a data set is: images as uint8, labels, and how to normalise them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from weightfold.data.budget import MAX_CLASSES


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with their labels, in memory.

    Attributes:
        images: uint8 (N, C, H, W), 0 black to 255.
        labels: int64 (N,).

    Raises:
        TypeError: A tensor of another dtype.
        ValueError: Shapes that do not fit together, or no images.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        for name, dtype in (("images", torch.uint8), ("labels", torch.int64)):
            tensor = getattr(self, name)
            if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
                given = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise TypeError(f"{name} is {given}; give a {dtype} tensor")
        if self.images.dim() != 4:
            raise ValueError(f"images has shape {tuple(self.images.shape)}; give (N, C, H, W)")
        check_labels(self.labels, len(self.images))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images of {self.image_shape})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def select(self, index: Tensor) -> Self:
        """The images at `index`, int64 (M,), in its order."""
        return type(self)(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> Self:
        """The set with its tensors on `device`."""
        return type(self)(self.images.to(device), self.labels.to(device))

    def read(self, orders: Sequence[Tensor]) -> Iterator[Tensor]:
        """For each of `orders`, int64 (B,), the images there: uint8 (B, C, H, W)."""
        for order in orders:
            yield self.images.index_select(0, order)


def check_labels(labels: Tensor, images: int) -> None:
    """Refuse labels that are not one per image or absurdly large, and an empty set.

    Raises:
        ValueError: As said.
    """
    if labels.shape != (images,):
        raise ValueError(
            f"labels has shape {tuple(labels.shape)} for {images} images; give ({images},)"
        )
    if images == 0:
        raise ValueError("images is empty; give at least one image")
    # Before anything is made that has one entry a class: counts, names, a layer.
    if int(labels.max()) >= MAX_CLASSES:
        raise ValueError(
            f"labels has {int(labels.max())}; labels count classes from 0, and at most "
            f"{MAX_CLASSES:,} classes are taken"
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set.

    Attributes:
        name: What it is called.
        train: To train on.
        test: To test on; images of the same shape.
        num_classes: Labels run from 0 to num_classes - 1.
        mean: Of the training images / 255, per channel.
        std: Standard deviation of the same.
        class_names: One per class.
        record: Where it came from and what was done to it, as JSON values: "source", numbers of
            images ("train", "test"), "image_shape" (C, H, W), and the options of `load` that were
            given, with "labels_changed" beside "corrupt".
        groups: int64 (N,): training images with one number belong together, such as the frames of
            one video, and a validation split keeps them so; None: each stands alone.

    Raises:
        ValueError: Labels, image shapes or the lengths of `mean`, `std`, `class_names`, `groups` do
            not fit.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    record: dict[str, Any] = field(default_factory=dict)
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        if self.train.image_shape != self.test.image_shape:
            raise ValueError(
                f"{self.name}: training images are {self.train.image_shape} and test images "
                f"{self.test.image_shape}; make them one (C, H, W)"
            )
        for part in ("train", "test"):
            labels = getattr(self, part).labels
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"{self.name}: {part} labels run from {low} to {high}; with num_classes="
                    f"{self.num_classes} they must lie in 0..{self.num_classes - 1}"
                )
        channels = self.train.image_shape[0]
        for name, wanted in (("mean", channels), ("std", channels), ("class_names", None)):
            length = len(getattr(self, name))
            wanted = self.num_classes if wanted is None else wanted
            if length != wanted:
                raise ValueError(f"{self.name}: {name} has {length} entries; give {wanted}")
        if self.groups is not None and self.groups.shape != self.train.labels.shape:
            raise ValueError(
                f"{self.name}: groups has shape {tuple(self.groups.shape)} for {len(self.train)} "
                "training images; give one number per image"
            )
        if min(self.std) <= 0:
            raise ValueError(
                f"{self.name}: std={self.std} has an entry that is not positive (are all "
                "training images the same there?); images cannot be normalised with it"
            )


def mean_and_std(image_set: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation of images / 255, per channel."""
    channels = image_set.image_shape[0]
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros_like(total)
    pixels = 0
    # In float64 these sums of integers are exact.
    for images in image_set.read(torch.arange(len(image_set)).split(1000)):
        values = images.transpose(0, 1).flatten(1).double()
        total += values.sum(dim=1)
        squares += values.square().sum(dim=1)
        pixels += values.shape[1]
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp_min(0).sqrt()
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
