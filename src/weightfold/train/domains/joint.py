"""How several domains are trained together. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from weightfold.hints import check_fields

Sampler = Literal["all", "round_robin", "proportional", "temperature"]


@dataclass(frozen=True)
class Joint:
    """How several domains are trained together, beside the recipe.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of range, or two values contradict each other.
    """

    sampler: Sampler = "all"
    """Which domains a step trains on, with a batch of the recipe's size of each. all: every domain;
    the others one domain: round_robin in turn; proportional drawn in proportion to the domains'
    training images n; temperature in proportion to n**(1/T)."""

    epoch: Literal["min", "max"] | int = "max"
    """Length of an epoch: as many batches as the shortest or the longest domain has (where a step
    trains one domain, that many for each); or this many steps. A domain that runs out in the midst
    of an epoch starts again, reshuffled; every epoch starts all of them anew."""

    temperature: float | None = None
    """T of sampler temperature: 1 is proportional, large is uniform."""

    loss_weights: Mapping[str, float] | Literal["uncertainty"] | None = None
    """Weight of each domain's mean cross-entropy L in the sum; none: 1. uncertainty: learned, each
    domain's term is exp(-s) L + s / 2 with a trained s = log sigma^2 that starts at 0 (Kendall, Gal
    and Cipolla 2018, classification: L / sigma^2 + log sigma); s is not decayed. The factor exp(-s)
    tends to 1 / (2 L), so the steps on a domain learnt by heart grow without end: set clip_norm."""

    shared_gradient: Literal["sum", "mean"] = "sum"
    """Gradient of what several domains share: of the sum of the losses, or that divided by the
    number of domains in the step. What one domain owns gets its own loss's gradient either way."""

    head_epochs: int = 0
    """Epochs before the joint ones in which only the classifiers are trained, at the recipe's lr
    unscheduled, with everything else frozen and batch norm and dropout in eval mode, so that each
    domain's classifier is trained as if alone. They count as the run's first epochs."""

    def __post_init__(self) -> None:
        check_fields(self)
        whole = isinstance(self.epoch, int) and not isinstance(self.epoch, bool)
        self._need(
            self.epoch in ("min", "max") or (whole and self.epoch >= 1),
            "epoch",
            "'min', 'max' or a number of steps of at least 1",
        )
        given = self.temperature is not None
        self._need(
            given == (self.sampler == "temperature"),
            "temperature",
            f"{'none' if given else 'given'} with sampler={self.sampler!r}",
        )
        self._need(not given or _above(self.temperature), "temperature", "a number above 0")
        self._need(self.head_epochs >= 0, "head_epochs", "0 or more")
        weights = self.loss_weights
        self._need(
            weights in (None, "uncertainty")
            or (isinstance(weights, Mapping) and all(_above(w) for w in weights.values())),
            "loss_weights",
            "none, 'uncertainty', or a number above 0 for every domain",
        )

    def _need(self, holds: bool, name: str, right: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r}: it must be {right}")


def _above(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0
