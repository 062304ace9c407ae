"""What a probe trains and tests on: any inputs with class labels, as tensors."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from weightfold.data.dataset import Dataset, check_labels


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """Inputs with their labels.

    Attributes:
        x: uint8 or floating point (N, ...).
        y: int64 (N,).

    Raises:
        TypeError: A tensor of another dtype.
        ValueError: Not one label an input, no input, or an input that is not finite.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor) or not isinstance(self.y, Tensor):
            raise TypeError(
                f"x is a {type(self.x).__name__} and y a {type(self.y).__name__}; give two tensors"
            )
        if self.x.dtype != torch.uint8 and not self.x.is_floating_point():
            raise TypeError(f"x is {self.x.dtype}; give uint8 or a floating point dtype")
        if self.y.dtype != torch.int64:
            raise TypeError(f"y is {self.y.dtype}; give int64 class labels")
        check_labels(self.y, len(self.x))
        if self.x.is_floating_point() and not self.x.isfinite().all():
            raise ValueError("x has values that are NaN or infinite; remove them")

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Examples({len(self)} of {tuple(self.x.shape[1:])})"

    def select(self, index: Tensor) -> Self:
        """The examples at `index`, int64 (M,) or bool (N,), in order."""
        return type(self)(self.x[index], self.y[index])

    def to(self, device: torch.device | str) -> Self:
        """The examples with their tensors on `device`."""
        return type(self)(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, eq=False)
class Samples:
    """Examples to train on, to choose by and to test on, held in memory.

    Attributes:
        train: To train on.
        test: Held out.
        num_classes: Labels run from 0 to num_classes - 1.
        validation: Held out too, to choose by; None: not split off.
        scale: float32, broadcast against an input; `inputs` multiplies by it.
        shift: float32; `inputs` subtracts it afterwards.
        name: What the data is called.
        record: Where it came from and what was done to it, as JSON values.

    Raises:
        ValueError: Fewer than two classes, labels outside 0..num_classes - 1, or inputs of
            different shapes or dtypes.
    """

    train: Examples
    test: Examples
    num_classes: int
    validation: Examples | None = None
    scale: Tensor = field(default_factory=lambda: torch.ones(()))
    shift: Tensor = field(default_factory=lambda: torch.zeros(()))
    name: str = "data"
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_classes < 2 or len(self.train.y.unique()) < 2:
            raise ValueError(
                f"{self.name}: the training labels are all of one class; give at least two classes"
            )
        for part, examples in self.parts.items():
            low, high = int(examples.y.min()), int(examples.y.max())
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"{self.name}: {part} labels run from {low} to {high}; with num_classes="
                    f"{self.num_classes} they must lie in 0..{self.num_classes - 1}"
                )
            if examples.x.shape[1:] != self.shape or examples.x.dtype != self.train.x.dtype:
                raise ValueError(
                    f"{self.name}: {part} inputs are {examples.x.dtype} "
                    f"{tuple(examples.x.shape[1:])}, training inputs {self.train.x.dtype} "
                    f"{tuple(self.shape)}; make them one"
                )

    @property
    def parts(self) -> dict[str, Examples]:
        """The sets there are, by name: "train", "test", "validation"."""
        parts = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def shape(self) -> torch.Size:
        """Shape of one input."""
        return self.train.x.shape[1:]

    @property
    def chance(self) -> float:
        """Test accuracy of always naming the class most frequent in training."""
        return (self.test.y == self.train.y.bincount().argmax()).double().mean().item()

    def inputs(self, x: Tensor) -> Tensor:
        """`x`, (..., *shape), as float32 that a network takes: normalised."""
        return x.float() * self.scale - self.shift

    def to(self, device: torch.device | str) -> Self:
        """The samples with their tensors on `device`."""
        moved: dict[str, Any] = {name: part.to(device) for name, part in self.parts.items()}
        return replace(self, **moved, scale=self.scale.to(device), shift=self.shift.to(device))

    def limited(self, train: int | None = None, test: int | None = None, seed: int = 0) -> Self:
        """The first `train` and `test` examples of a random order; None keeps all.

        Raises:
            ValueError: One of the two is below 1.
        """
        for name, limit in (("train", train), ("test", test)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name}={limit}: give how many examples to keep, at least 1")
        generator = torch.Generator().manual_seed(seed)
        parts = {}
        for name, limit in (("train", train), ("test", test)):
            part = self.parts[name]
            order = torch.randperm(len(part), generator=generator)
            if limit is not None and limit < len(part):
                parts[name] = part.select(order[:limit])
        return replace(self, **parts, record={**self.record, "train": train, "test": test})

    def hold_out(self, count: int, seed: int = 0) -> Self:
        """With `count` of the training examples set aside as `validation`.

        Raises:
            ValueError: `count` leaves one of the two empty.
        """
        if not 0 < count < len(self.train):
            raise ValueError(
                f"validation={count}: give 1 to {len(self.train) - 1} of the training examples"
            )
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        train, validation = self.train.select(order[count:]), self.train.select(order[:count])
        return replace(
            self, train=train, validation=validation, record={**self.record, "validation": count}
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over inputs, labels and normalisation: of equal digest, the data is the same."""
        sha = hashlib.sha256(" ".join([str(self.num_classes), *self.parts]).encode())
        parts = [tensor for part in self.parts.values() for tensor in (part.x, part.y)]
        for tensor in (*parts, self.scale, self.shift):
            sha.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return sha.hexdigest()[:16]


Data = Samples | Dataset | tuple[Any, Any]
"""What probes take for `data`, see `as_samples`."""


def as_samples(data: Data) -> Samples:
    """Samples of whatever a user has.

    Args:
        data: Samples; a `Dataset` of `weightfold.data.load`; or a training and a held-out set, each
            a pair of tensors (inputs, labels) or a map-style torch Dataset of such pairs, whose
            inputs are taken as they are.

    Raises:
        TypeError: It is something else.
        ValueError: As `Samples` and `Examples` say.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, Dataset):
        std = torch.tensor(data.std, dtype=torch.float64).view(-1, 1, 1)
        mean = torch.tensor(data.mean, dtype=torch.float64).view(-1, 1, 1)
        return Samples(
            Examples(data.train.images, data.train.labels),
            Examples(data.test.images, data.test.labels),
            data.num_classes,
            scale=(1 / (255 * std)).float(),
            shift=(mean / std).float(),
            name=data.name,
            record=data.record,
        )
    if isinstance(data, tuple | list) and len(data) == 2:
        train, test = (_examples(part) for part in data)
        highest = max(int(part.y.max()) for part in (train, test))
        return Samples(train, test, highest + 1)
    raise TypeError(
        f"data is a {type(data).__name__}; give a weightfold Dataset, Samples, or a pair "
        "(training set, held-out set) of torch Datasets or of (inputs, labels) tensors"
    )


def _examples(part: Any) -> Examples:
    if isinstance(part, Examples):
        return part
    if isinstance(part, tuple | list) and len(part) == 2 and isinstance(part[0], Tensor):
        return Examples(*part)
    if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
        raise TypeError(
            f"data has a {type(part).__name__}; give a map-style torch Dataset (with len() and "
            "[index]) or a pair of tensors (inputs, labels)"
        )
    pairs = [part[index] for index in range(len(part))]
    try:
        x = torch.stack([torch.as_tensor(x) for x, _ in pairs])
        y = torch.tensor([int(y) for _, y in pairs])
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"data: items of the {type(part).__name__} are not (tensor, label) pairs of one shape: "
            f"{error}; add a transform that makes them so"
        ) from None
    return Examples(x, y)
