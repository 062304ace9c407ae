"""How a domain's images are prepared."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocessing:
    """How a domain's images are prepared.

    Attributes:
        image_shape: (C, H, W).
        mean: Of images / 255, per channel.
        std: Of images / 255, per channel.

    Raises:
        ValueError: A shape that is not three positive numbers, not one mean and one std a channel,
            one that is not finite, or a std that is not positive.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        shape = self.image_shape
        if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"image_shape={shape} must be three positive numbers, (C, H, W)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
                raise ValueError(f"{name}={values} must be numbers")
            if len(values) != shape[0]:
                raise ValueError(f"{name}={values} must be {shape[0]} numbers, one a channel")
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std} must be above 0, for images are divided by it")


def preprocessing_of(told: Mapping[str, Any]) -> Preprocessing:
    """What a bundle tells of a domain's images.

    Args:
        told: "image_shape", "mean" and "std", of JSON values.

    Raises:
        ValueError: As `Preprocessing`.
    """
    lists = {key: told[key] for key in ("image_shape", "mean", "std")}
    for key, values in lists.items():
        if not isinstance(values, list | tuple):
            raise ValueError(f"{key}={values!r} must be a list")
    return Preprocessing(**{key: tuple(values) for key, values in lists.items()})


def check_class_names(names: Any, count: int) -> None:
    """Refuse names of classes that are not one a class.

    Raises:
        ValueError: As said. No names at all are right.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names={names!r} must be a list of names")
    if names and len(names) != count:
        raise ValueError(f"class_names are {len(names)}, but the domain has {count} classes")
