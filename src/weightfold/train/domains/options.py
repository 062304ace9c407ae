"""How a run on several domains is carried out. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from weightfold.train.domains.joint import Joint
from weightfold.train.options import Options

Aggregator = Callable[[Any], Any]
"""Jacobian (domains, parameters) of the domains' losses by what they share -> gradient
(parameters,)."""


@dataclass(frozen=True)
class DomainOptions(Options):
    """How a run on several domains is carried out, and how they are trained together.

    Raises:
        ValueError: A value is out of range, or two values contradict each other.
    """

    joint: Joint = field(default_factory=Joint)
    """How the domains are trained together."""

    aggregator: Aggregator | None = None
    """Combines the domains' gradients of what they share: from the Jacobian (domains, shared
    parameters) of the terms of the loss to a gradient (shared parameters,), such as those of
    TorchJD's `torchjd.aggregation`. What one domain owns gets its own gradient. Takes one backward
    pass a domain. A state it keeps is not resumed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregator is None:
            return
        for argument, given, wanted in (
            ("sampler", self.joint.sampler, "all"),
            ("shared_gradient", self.joint.shared_gradient, "sum"),
            ("devices", self.devices, 1),
        ):
            if given != wanted:
                raise ValueError(f"{argument}={given!r} with an aggregator: it must be {wanted!r}")
        if self.precision == "16-mixed":
            raise ValueError(
                "precision='16-mixed' with an aggregator: use '32-true' or 'bf16-mixed'"
            )
