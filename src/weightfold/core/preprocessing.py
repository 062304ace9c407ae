"""How a network is fed: from the pixels of an image to what its first layer takes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from torch import nn

from weightfold.core.charted import Charted

_ATTRIBUTE = "_weightfold_preprocessing"
_NEEDED = ("image_shape", "mean", "std")


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a network, and what its classes are called.

    A pixel p of 0 to 255 becomes v = low + (high - low) * p / 255, and then (v - mean) / std of its
    channel. It goes with the network: `fit` attaches it, `wf.save` stores it, charts, `deploy` and
    every exported file keep it.

    >>> import torch, weightfold as wf
    >>> net = torch.nn.Conv2d(3, 2, 1)
    >>> wf.Preprocessing((3, 32, 32), value_range=(-1, 1)).attach(net)  # a network of 2 * x - 1
    >>> wf.Preprocessing.of(net).mean
    (0.0, 0.0, 0.0)

    Attributes:
        image_shape: (C, H, W), C 1 for gray and 3 for RGB; other images are scaled to a shorter
            side of H (= W), of which the middle is taken.
        mean: Of v, one a channel; none: 0.
        std: Of v, one a channel; none: 1.
        value_range: What black and white are before they are normalised: low, high.
        class_names: One a class, or none.

    Raises:
        ValueError: A shape that is not three positive numbers, not one mean and one std a channel,
            a number that is not finite, an std that is not positive, an empty range, or names that
            are no texts.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, list | tuple):
                raise ValueError(f"{name}={value!r} must be a list")
            object.__setattr__(self, name, tuple(value))
        shape = self.image_shape
        if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"image_shape={shape} must be three positive numbers, (C, H, W)")
        for name, usual in (("mean", 0.0), ("std", 1.0)):
            values = getattr(self, name) or (usual,) * shape[0]
            _check_numbers(name, values)
            if len(values) != shape[0]:
                raise ValueError(f"{name}={values} must be {shape[0]} numbers, one a channel")
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std} must be above 0, for images are divided by it")
        _check_numbers("value_range", self.value_range)
        if len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"value_range={self.value_range} must be two numbers, the lower first")
        check_class_names(self.class_names)

    @property
    def unit_mean(self) -> tuple[float, ...]:
        """What `mean` is where black is 0 and white is 1."""
        low, high = self.value_range
        return tuple((value - low) / (high - low) for value in self.mean)

    @property
    def unit_std(self) -> tuple[float, ...]:
        """What `std` is where black is 0 and white is 1."""
        low, high = self.value_range
        return tuple(value / (high - low) for value in self.std)

    def record(self) -> dict[str, Any]:
        """As JSON values, for `of_record`."""
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self | None:
        """What a record tells, other fields beside; None where shape, mean or std are missing.

        Raises:
            ValueError: As the class.
        """
        if not record.keys() >= set(_NEEDED):
            return None
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})

    @classmethod
    def of(cls, net: nn.Module) -> Self | None:
        """How a network is fed, plain or under charts; None: it does not say."""
        return getattr(_plain(net), _ATTRIBUTE, None)

    def attach(self, net: nn.Module) -> None:
        """Let a network, plain or under charts, say that it is fed so; its copies say it, too."""
        setattr(_plain(net), _ATTRIBUTE, self)

    @staticmethod
    def detach(net: nn.Module) -> None:
        """Let a network no longer say how it is fed."""
        setattr(_plain(net), _ATTRIBUTE, None)

    def without_classes(self) -> Self:
        """The same for a network of other classes."""
        return replace(self, class_names=())


def _plain(net: nn.Module) -> nn.Module:
    while isinstance(net, Charted):
        net = net.model
    return net


def _check_numbers(name: str, values: Iterable[Any]) -> None:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or not all(map(math.isfinite, values)):
        raise ValueError(f"{name}={tuple(values)} must be numbers")


def check_class_names(names: Any, count: int | None = None) -> None:
    """Refuse names of classes that are no texts, or not one a class.

    Args:
        names: None at all are right.
        count: Of the classes; None: not known.

    Raises:
        ValueError: As said.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names={names!r} must be a list of names")
    if names and count is not None and len(names) != count:
        raise ValueError(f"class_names are {len(names)}, but the domain has {count} classes")
