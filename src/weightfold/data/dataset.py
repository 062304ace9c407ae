"""What a data set is: inputs with their targets, in parts, and how to normalise the inputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from weightfold.core.preprocessing import Preprocessing
from weightfold.data.budget import MAX_CLASSES
from weightfold.data.contents import digest_of, moved

Targets = Any
"""A tensor (N, ...), or a sequence of N tensors or dicts of tensors."""

VOID = 255
"""In masks: pixels of no class, which are neither learnt nor judged."""


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """Inputs with their targets, in memory.

    Attributes:
        inputs: uint8 (images: 0 black to 255) or floating point, (N, ...).
        targets: A tensor (N, ...), such as int64 class labels (N,); or, where they differ in shape
            from one input to the next, a sequence of N tensors or dicts of tensors.

    Raises:
        TypeError: Inputs that are no tensor of such a dtype, or targets that are no sequence.
        ValueError: Not one target an input, no input, or inputs that are not finite.
    """

    inputs: Tensor
    targets: Targets

    def __post_init__(self) -> None:
        inputs = self.inputs
        given = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        if not isinstance(inputs, Tensor) or not (
            inputs.dtype == torch.uint8 or inputs.is_floating_point()
        ):
            raise TypeError(f"inputs is {given}; give a tensor, uint8 or of a floating point dtype")
        check_targets(self.targets, len(inputs) if inputs.dim() else 0)
        if inputs.is_floating_point() and not inputs.isfinite().all():
            raise ValueError("inputs has values that are NaN or infinite; remove them")

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {tuple(self.shape)})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W) of an image."""
        return tuple(self.inputs.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Of the inputs."""
        return self.inputs.dtype

    @property
    def labels(self) -> Tensor | None:
        """The targets, if they are class labels, int64 (N,); else None."""
        targets = self.targets
        labels = isinstance(targets, Tensor) and targets.dtype == torch.int64 and targets.dim() == 1
        return targets if labels else None

    def select(self, index: Tensor) -> Self:
        """The examples at `index`, int64 (M,) or bool (N,), in order."""
        return type(self)(self.inputs[index], self.targets_at(index))

    def targets_at(self, index: Tensor) -> Targets:
        """The targets at `index`, int64 (M,) or bool (N,), in order."""
        if isinstance(self.targets, Tensor):
            if index.dtype == torch.bool:
                return self.targets[index]
            return self.targets.index_select(0, index)
        places = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        return [self.targets[place] for place in places.tolist()]

    def to(self, device: torch.device | str) -> Self:
        """The examples with their tensors on `device`."""
        return type(self)(self.inputs.to(device), moved(self.targets, device))

    def read(self, orders: Sequence[Tensor]) -> Iterator[Tensor]:
        """For each of `orders`, int64 (B,), the inputs there: (B, ...)."""
        for order in orders:
            yield self.inputs.index_select(0, order)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over inputs and targets, in 16 hex digits."""
        return digest_of([self.inputs, self.targets])


def check_targets(targets: Targets, inputs: int) -> None:
    """Refuse targets that are not one per input, an empty set, and absurdly large class labels.

    Raises:
        TypeError: They are no tensor and no sequence.
        ValueError: As said.
    """
    if not isinstance(targets, Tensor | list | tuple):
        raise TypeError(f"targets is a {type(targets).__name__}; give a tensor, or a list of them")
    if inputs == 0:
        raise ValueError("inputs is empty; give at least one")
    shape = tuple(targets.shape) if isinstance(targets, Tensor) else (len(targets),)
    if not shape or shape[0] != inputs:
        raise ValueError(f"targets has shape {shape} for {inputs} inputs; give ({inputs}, ...)")
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.dim() > 1:
        return
    # Before anything is made that has one entry a class: counts, names, a layer.
    if int(targets.max()) >= MAX_CLASSES:
        raise ValueError(
            f"targets has {int(targets.max())}; labels count classes from 0, and at most "
            f"{MAX_CLASSES:,} classes are taken"
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples to train on, to test on and, where there are, to choose by.

    Attributes:
        name: What it is called.
        train: To train on.
        test: Held out; inputs of the same shape and dtype.
        num_classes: Targets are class labels, int64, from 0 to num_classes - 1, or masks of them,
            uint8 (N, H, W), with `VOID` where there is none, or dicts with such "labels"; 0: they
            are not.
        mean: Of the training inputs (uint8: / 255), one per channel (or one for all values of
            inputs that are vectors); empty: the inputs are taken as they are.
        std: Standard deviation of the same; given with `mean`.
        class_names: One per class, or none.
        record: Where it came from and what was done to it, as JSON values: "source", numbers of
            examples ("train", "test"), "image_shape" (C, H, W), and the options of `load` that were
            given, with "labels_changed" beside "corrupt".
        groups: int64 (N,): training examples with one number belong together, such as the frames of
            one video, and a validation split keeps them so; None: each stands alone.
        validation: Held out too, to choose by; None: not split off.

    Raises:
        ValueError: Targets, shapes or the lengths of `mean`, `std`, `class_names`, `groups` do not
            fit.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    groups: Tensor | None = None
    validation: Examples | None = None

    def __post_init__(self) -> None:
        for part, examples in self.parts.items():
            if (examples.shape, examples.dtype) != (self.shape, self.train.dtype):
                raise ValueError(
                    f"{self.name}: {part} inputs are {examples.dtype} {examples.shape}, training "
                    f"inputs {self.train.dtype} {self.shape}; make them one"
                )
        if self.num_classes:
            self._check_classes(self.num_classes)
        if self.groups is not None and self.groups.shape != (len(self.train),):
            raise ValueError(
                f"{self.name}: groups has shape {tuple(self.groups.shape)} for {len(self.train)} "
                "training examples; give one number per example"
            )
        if self.mean or self.std:
            try:
                scale_and_shift(self.mean, self.std, self.shape, self.train.dtype)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None

    def _check_classes(self, classes: int) -> None:
        for part, examples in self.parts.items():
            targets = examples.targets
            masks = isinstance(targets, Tensor) and targets.dtype == torch.uint8
            if masks and targets.dim() == 3:
                targets = targets[targets != VOID]
                targets = targets if len(targets) else targets.new_zeros(1)
            elif isinstance(targets, list | tuple) and isinstance(targets[0], dict):
                labels = [target["labels"] for target in targets if "labels" in target]
                targets = torch.cat([*labels, torch.zeros(1, dtype=torch.int64)])
            elif not isinstance(targets, Tensor) or targets.dtype != torch.int64:
                given = targets.dtype if isinstance(targets, Tensor) else "a sequence"
                raise ValueError(
                    f"{self.name}: num_classes={classes}, but {part} targets are {given}; give "
                    "int64 class labels, uint8 masks (N, H, W), or num_classes=0"
                )
            low, high = int(targets.min()), int(targets.max())
            if low < 0 or high >= classes:
                raise ValueError(
                    f"{self.name}: {part} labels run from {low} to {high}; with num_classes="
                    f"{classes} they must lie in 0..{classes - 1}"
                )
        if self.class_names and len(self.class_names) != classes:
            raise ValueError(
                f"{self.name}: class_names has {len(self.class_names)} entries; give {classes}"
            )

    @property
    def parts(self) -> dict[str, Examples]:
        """The parts there are, by name: "train", "test", "validation"."""
        parts = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W) of an image."""
        return self.train.shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W).

        Raises:
            ValueError: The inputs are no images.
        """
        if len(self.shape) != 3:
            raise ValueError(f"{self.name} has inputs of shape {self.shape}; images are (C, H, W)")
        channels, height, width = self.shape
        return channels, height, width

    @cached_property
    def _normalization(self) -> tuple[Tensor, Tensor]:
        return scale_and_shift(self.mean, self.std, self.shape, self.train.dtype)

    @property
    def scale(self) -> Tensor:
        """float32, broadcast against an input; `normalize` multiplies by it."""
        return self._normalization[0]

    @property
    def shift(self) -> Tensor:
        """float32, broadcast against an input; `normalize` subtracts it afterwards."""
        return self._normalization[1]

    def normalize(self, inputs: Tensor) -> Tensor:
        """Inputs of the parts, (..., *shape), as float32 that a network takes."""
        return inputs.float() * self.scale.to(inputs.device) - self.shift.to(inputs.device)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a network that is trained on it is fed; None: that is not known of such inputs."""
        if self.train.dtype != torch.uint8 or len(self.shape) != 3:
            return None
        value_range = (0.0, 1.0) if self.mean else (0.0, 255.0)
        return Preprocessing(self.image_shape, self.mean, self.std, value_range, self.class_names)

    def fed_as(self, told: Preprocessing, what: str) -> Self:
        """The data set, its images prepared as a network takes them.

        Args:
            told: How the network is fed.
            what: Is fed so, for errors.

        Raises:
            ValueError: Its images are of another shape, or its classes are others.
        """
        self.check_fits(told.image_shape, told.class_names, what)
        if self.train.dtype != torch.uint8:
            return self
        return replace(self, mean=told.unit_mean, std=told.unit_std)

    def check_fits(self, shape: Sequence[int], class_names: Sequence[str], what: str) -> None:
        """Refuse images of another shape than a network takes, and other classes than it has.

        Args:
            shape: (C, H, W); empty: not known.
            class_names: Empty: not known.
            what: Takes them, for errors.

        Raises:
            ValueError: As said.
        """
        if shape and self.shape != tuple(shape):
            raise ValueError(
                f"{what} takes images of {tuple(shape)}, the data set {self.name!r} has "
                f"{self.shape}; add ',size=PIXELS' or ',rgb=true' to it"
            )
        if class_names and self.class_names and tuple(class_names) != self.class_names:
            raise ValueError(
                f"{what} has the classes {_shown(class_names)}, the data set {self.name!r} "
                f"{_shown(self.class_names)}; give data with the same ones in the same order"
            )

    def to(self, device: torch.device | str) -> Self:
        """The data set with its examples on `device`."""
        parts: dict[str, Any] = {name: part.to(device) for name, part in self.parts.items()}
        return replace(self, **parts)

    def limited(self, train: int | None = None, test: int | None = None, seed: int = 0) -> Self:
        """The first `train` and `test` examples of a random order; None keeps all.

        Raises:
            ValueError: One of the two is below 1.
        """
        limits = {"train": train, "test": test}
        for name, limit in limits.items():
            if limit is not None and limit < 1:
                raise ValueError(f"{name}={limit}: give how many examples to keep, at least 1")
        generator = torch.Generator().manual_seed(seed)
        changes: dict[str, Any] = {"record": {**self.record, **limits}}
        for name, limit in limits.items():
            part = self.parts[name]
            order = torch.randperm(len(part), generator=generator)
            if limit is not None and limit < len(part):
                changes[name] = part.select(order[:limit])
                if name == "train" and self.groups is not None:
                    changes["groups"] = self.groups[order[:limit]]
        return replace(self, **changes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over contents and normalisation: of equal digest, the data is the same."""
        parts = {name: part.digest for name, part in self.parts.items()}
        return digest_of([self.num_classes, parts, self.scale, self.shift, self.groups])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def scale_and_shift(
    mean: Sequence[float],
    std: Sequence[float],
    shape: Sequence[int],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """By what to multiply an input, and what to subtract then, to normalise it; float32.

    Args:
        mean: As in `Dataset`.
        std: As in `Dataset`.
        shape: Of one input, channels first.
        dtype: Of the inputs; uint8 are scaled to 0..1 first.

    Raises:
        ValueError: Only one of `mean` and `std`, another number of entries than 1 or that of the
            channels, or an std that is not positive.
    """
    if not mean and not std:
        return torch.ones(()), torch.zeros(())
    channels = shape[0] if shape else 1
    allowed = (channels,) if len(shape) > 2 else (1, channels)
    for name, given in (("mean", mean), ("std", std)):
        if len(given) not in allowed:
            raise ValueError(
                f"{name} has {len(given)} entries; the inputs have {channels} channels"
            )
    if min(std) <= 0:
        raise ValueError(
            f"std={tuple(std)} has an entry that is not positive (are all training inputs the same "
            "there?); inputs cannot be normalised with it"
        )
    view = (-1, *[1] * (len(shape) - 1))
    spread = torch.tensor(std, dtype=torch.float64).view(view)
    shift = torch.tensor(mean, dtype=torch.float64).view(view) / spread
    unit = 255 if dtype == torch.uint8 else 1
    return (1 / (unit * spread)).float(), shift.float()


def mean_and_std(examples: Examples) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation of images / 255, per channel."""
    channels = examples.shape[0]
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros_like(total)
    pixels = 0
    # In float64 these sums of integers are exact.
    for images in examples.read(torch.arange(len(examples)).split(1000)):
        values = images.transpose(0, 1).flatten(1).double()
        total += values.sum(dim=1)
        squares += values.square().sum(dim=1)
        pixels += values.shape[1]
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp_min(0).sqrt()
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
