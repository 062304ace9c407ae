"""Options of the probes of memorization."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from weightfold.data.disturb import CONDITIONS, IN_PART
from weightfold.hints import check_fields
from weightfold.probes.models import Model
from weightfold.train.recipe import Recipe
from weightfold.train.together import Together


@dataclass(frozen=True)
class Variant:
    """Another way to train, such as with a regulariser.

    Attributes:
        net: With dropout, say; None: the network of the call.
        recipe: With weight decay or with crop and flip, say; None: the recipe of the call.
    """

    net: Model | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True)
class MemorizationOptions:
    """What is trained on, by `wf.memorization`.

    Attributes:
        conditions: Of `weightfold.data.disturb.CONDITIONS`, each on the whole training set.
        fractions: Fractions of the training set, in (0, 1), at which those of `noise` are done too.
        noise: Of random-labels, random-pixels and gaussian.
        variants: Name -> another network or recipe, trained on true and on random labels.
        radius: Of the box in which critical samples are searched around the test inputs, at the end
            of training; see `critical_sample_ratio`. None: they are not.

    Raises:
        TypeError: A value is of another type.
        ValueError: One is out of range.
    """

    conditions: Sequence[str] = CONDITIONS
    fractions: Sequence[float] = ()
    noise: Sequence[str] = ("random-labels",)
    variants: Mapping[str, Variant] | None = None
    radius: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name, allowed in (("conditions", CONDITIONS), ("noise", IN_PART)):
            if unknown := [one for one in getattr(self, name) if one not in allowed]:
                raise ValueError(f"{name} has {unknown[0]!r}; give some of {', '.join(allowed)}")
        for fraction in self.fractions:
            if not 0 < fraction < 1:
                raise ValueError(f"fractions has {fraction}; give numbers above 0 and below 1")
        for name in self.variants or {}:
            if not re.fullmatch(r"[\w.-]+( [\w.-]+)*", name):
                raise ValueError(
                    f"variants has {name!r}; name them in letters, digits, . _ - and space"
                )
        if not (self.conditions or (self.fractions and self.noise) or self.variants):
            raise ValueError(
                "conditions, fractions and variants are empty; give at least one condition"
            )
        if self.radius is not None and not self.radius > 0:
            raise ValueError(
                f"radius={self.radius}: give a number above 0, in the unit of the inputs"
            )


class MemorizationKeywords(TypedDict, total=False):
    """`MemorizationOptions` as keyword arguments of `wf.memorization`."""

    options: MemorizationOptions
    conditions: Sequence[str]
    fractions: Sequence[float]
    noise: Sequence[str]
    variants: Mapping[str, Variant] | None
    radius: float | None


@dataclass(frozen=True)
class LedgerOptions:
    """What is trained on, by `wf.example_ledger`.

    Attributes:
        conditions: Of `weightfold.data.disturb.CONDITIONS`.
        fraction: Of the training set that random-labels, random-pixels and gaussian disturb.
        noise_seed: Of the disturbance.
        together: Runs trained as one batch, see `fit_together`.

    Raises:
        TypeError: A value is of another type.
        ValueError: `conditions` are unknown, none, or one twice.
    """

    conditions: Sequence[str] = ("true", "random-labels")
    fraction: float = 1.0
    noise_seed: int = 0
    together: Together = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        given = tuple(self.conditions)
        if not given or len({*given}) < len(given) or {*given} - {*CONDITIONS}:
            raise ValueError(f"conditions={given}: give some of {', '.join(CONDITIONS)}, each once")


class LedgerKeywords(TypedDict, total=False):
    """`LedgerOptions` as keyword arguments of `wf.example_ledger`."""

    options: LedgerOptions
    conditions: Sequence[str]
    fraction: float
    noise_seed: int
    together: Together


@dataclass(frozen=True)
class CriticalOptions:
    """Where and how long `wf.critical_sample_ratio` searches.

    Attributes:
        radius: Of the box (largest change of a value), in the unit of the data's values: of 255
            for uint8. None: 0.3 for uint8, as in the paper.
        part: "train", "test" or "validation".
        steps: Of the search. The paper does not tell its number; 10 is ours.

    Raises:
        TypeError: A value is of another type.
        ValueError: One is out of range.
    """

    radius: float | None = None
    part: str = "test"
    steps: int = 10

    def __post_init__(self) -> None:
        check_fields(self)
        if self.radius is not None and not self.radius > 0:
            raise ValueError(
                f"radius={self.radius}: give a number above 0, in the unit of the inputs"
            )
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: give at least 1 step of the search")


class CriticalKeywords(TypedDict, total=False):
    """`CriticalOptions` as keyword arguments of `wf.critical_sample_ratio`."""

    options: CriticalOptions
    radius: float | None
    part: str
    steps: int
