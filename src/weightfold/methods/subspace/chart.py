"""Random subspace: theta = theta0 + P psi over all tensors jointly (Li et al. 2018, Eq. 2)."""

from collections.abc import Mapping
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.mixins import SeededConstants
from weightfold.methods.subspace.projections import KINDS, Kind, make
from weightfold.methods.subspace.projections.base import least_squares


class Subspace(SeededConstants, Chart):
    """d coordinates in a random subspace of all chosen tensors together, starting at theta0.

    P has unit columns over the whole of theta (one norm a column, not one a tensor). It comes from
    the seed; the seed is saved, P is neither saved nor broadcast.

    Args:
        theta0: Tensor name -> start value; their order fixes the layout of P.
        dim: d, the number of coordinates, 1 <= d <= D.
        seed: Of P, drawn on the CPU so that it is the same on every device.
        projection: Kind of P, one of `weightfold.methods.subspace.projections.KINDS`.

    Raises:
        ValueError: `dim` or `projection` is out of range, or the tensors are of several dtypes or
            devices, or not of floating point.
    """

    kind = "subspace"
    constants = ("theta0", "saved_seed", *(n for p in KINDS.values() for n in p.constants))

    def __init__(
        self, theta0: Mapping[str, Tensor], dim: int, seed: int, projection: Kind = "srht"
    ) -> None:
        super().__init__()
        self.shapes = {name: tuple(t.shape) for name, t in theta0.items()}
        if len(dtypes := {t.dtype for t in theta0.values()}) > 1:
            raise ValueError(f"the tensors are of the dtypes {dtypes}; choose those of one")
        if not (dtype := next(iter(dtypes), torch.float32)).is_floating_point:
            raise ValueError(f"the tensors are of {dtype}; a subspace is of floating-point ones")
        if len(devices := {t.device for t in theta0.values()}) > 1:
            raise ValueError(f"the tensors lie on {devices}; move them to one device")
        self.seed, self.projection_kind = seed, projection
        flat = torch.cat([t.detach().flatten() for t in theta0.values()])
        self.projection = make(projection, flat.numel(), dim, flat)
        self.psi = nn.Parameter(flat.new_zeros(dim))
        self.register_buffer("theta0", flat)
        self.register_buffer("saved_seed", torch.tensor(seed, device=flat.device))
        if not flat.is_meta:
            self.regenerate()

    def regenerate(self) -> None:
        """Draw P from the seed."""
        self.saved_seed.fill_(self.seed)
        self.projection.draw(self.seed)

    def _load_from_state_dict(self, *args: Any) -> None:  # type: ignore[override]
        """Load as torch does, then draw the P that belongs to the loaded psi."""
        super()._load_from_state_dict(*args)
        if not self.saved_seed.is_meta and self.saved_seed.item() != self.seed:
            self.seed = int(self.saved_seed)
            self.regenerate()

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """theta0 + P psi, cut into the tensors."""
        flat = self.theta0 + self.projection(self.psi)
        parts = flat.split([prod(shape) for shape in self.shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Least squares in psi around theta0, by conjugate gradients on the normal equations."""
        flat = torch.cat([theta[name].flatten() for name in self.shapes]) - self.theta0
        self.psi.copy_(least_squares(self.projection, flat))
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """Names, dimension, seed, kind of projection; theta0 is saved with psi."""
        return {
            "names": list(self.shapes),
            "dim": self.projection.dim,
            "seed": self.seed,
            "projection": self.projection_kind,
        }

    @classmethod
    def build(  # type: ignore[override]
        cls, net: nn.Module, *, names: list[str], dim: int, seed: int, projection: Kind = "dense"
    ) -> Self:
        """A subspace around the net's present weights; files that name no projection are dense."""
        tensors = dict(net.named_parameters(remove_duplicate=False))
        return cls({name: tensors[name] for name in names}, dim, seed, projection)

    @classmethod
    def example(cls) -> Example:
        """Seven coordinates for a small net."""
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        chart = cls(dict(model.named_parameters()), dim=7, seed=0)
        return Example(model, chart, torch.randn(3, 2, 6, 6))
