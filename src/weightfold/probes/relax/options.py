"""Options of `wf.relax`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from weightfold.core.arguments import check_choices
from weightfold.probes.layers.splice import Checkpoint

Snapshots = Mapping[int, Checkpoint]
"""Epoch -> state_dict or safetensors path of the convolutional network."""


@dataclass(frozen=True, kw_only=True)
class RelaxOptions:
    """How networks are set free.

    Attributes:
        relax_at: Epochs of the convolutional network at which it is embedded; None: 0 and
            logarithmically spaced ones up to its last.
        times: How many, where they are not given.
        epochs: Of training in the larger space, for the network from scratch too.
        lr: Learning rate there.
        rate: "given" is `lr`; "fair" the factors of `wf.fair_learning_rate` times `lr`, so that
            with the convolutional network's rate it moves as fast on its subspace (plain SGD).
        optimizer: In the larger space: plain "sgd", updated in place; or "adamw" without decay.
        space: "dense" or "local".
        padding: Of dense layers, as for `wf.embed`.
        scratch: Whether a network of the larger space is trained from torch's own start too.
        lasso: lambda of beta-lasso in the larger space (Neyshabur 2020); 0: none.
        curvature: Training examples that gradient norm and top eigenvalue are of; 0: not measured.
        points: Networks on each path between two; 0: no paths.
        snapshots: Of a network that is trained already, the last of them the trained one; none is
            trained then. Their epochs are the relax times.

    Raises:
        ValueError: One is out of range, or two contradict each other.
    """

    relax_at: Sequence[int] | None = None
    times: int = 8
    epochs: int = 100
    lr: float = 0.01
    rate: Literal["given", "fair"] = "given"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    space: Literal["dense", "local"] = "dense"
    padding: Literal["fold", "keep"] = "fold"
    scratch: bool = True
    lasso: float = 0.0
    curvature: int = 500
    points: int = 11
    snapshots: Snapshots | None = None

    def __post_init__(self) -> None:
        choices = {
            "rate": ("given", "fair"),
            "optimizer": ("sgd", "adamw"),
            "space": ("dense", "local"),
            "padding": ("fold", "keep"),
        }
        check_choices({name: getattr(self, name) for name in choices}, choices)
        for name in ("times", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: it must be above 0")
        for name in ("lasso", "curvature", "points"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 0")
        if self.rate == "fair" and self.optimizer != "sgd":
            raise ValueError("rate='fair' is of plain SGD; Adam's steps do not depend on it")
        if self.snapshots is not None and self.relax_at is not None:
            raise ValueError("relax_at is for training; with snapshots it is their epochs")

    def relax_times(self, last: int) -> tuple[int, ...]:
        """Epochs at which the network is embedded.

        Args:
            last: Epochs of its training.

        Raises:
            ValueError: One is outside 0..last.
        """
        if self.relax_at is None:
            steps = max(1, self.times - 2)
            spaced = {round(last ** (k / steps)) for k in range(steps + 1)}
            return tuple(sorted({0, *spaced}))[: max(self.times, 2)] if last > 0 else (0,)
        if bad := [epoch for epoch in self.relax_at if not 0 <= epoch <= last]:
            raise ValueError(f"relax_at has epoch {bad[0]}; the recipe trains epochs 0 to {last}")
        return tuple(sorted(set(self.relax_at)))


class RelaxKeywords(TypedDict, total=False):
    """`RelaxOptions` as keyword arguments of `wf.relax`."""

    options: RelaxOptions
    relax_at: Sequence[int] | None
    times: int
    epochs: int
    lr: float
    rate: Literal["given", "fair"]
    optimizer: Literal["sgd", "adamw"]
    space: Literal["dense", "local"]
    padding: Literal["fold", "keep"]
    scratch: bool
    lasso: float
    curvature: int
    points: int
    snapshots: Snapshots | None
