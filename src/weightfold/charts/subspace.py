"""Random subspace: theta = theta0 + P psi over all tensors jointly (Li et al. 2018, Eq. 2)."""

from collections.abc import Mapping
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example


class Subspace(Chart):
    """d coordinates in a random subspace of all chosen tensors together, starting at theta0.

    P is dense, D x d, Gaussian with unit columns over the whole of theta (one norm a column, not
    one a tensor). It comes from the seed; the seed is saved, P is neither saved nor broadcast.

    Args:
        theta0: Tensor name -> start value; their order fixes the layout of P.
        dim: d, the number of coordinates, 1 <= d <= D.
        seed: Seed of P, drawn on the CPU so that it is the same on every device.
    """

    kind = "subspace"
    constants = ("projection", "theta0", "saved_seed")

    def __init__(self, theta0: Mapping[str, Tensor], dim: int, seed: int) -> None:
        super().__init__()
        self.shapes = {name: tuple(t.shape) for name, t in theta0.items()}
        self.seed = seed
        flat = torch.cat([t.detach().flatten() for t in theta0.values()])
        if not 1 <= dim <= flat.numel():
            raise ValueError(f"dim={dim} must be between 1 and the {flat.numel()} weights chosen")
        self.psi = nn.Parameter(flat.new_zeros(dim))
        self.register_buffer("theta0", flat)
        self.register_buffer("saved_seed", torch.tensor(seed, device=flat.device))
        self.register_buffer("projection", flat.new_empty(flat.numel(), dim), persistent=False)
        if not flat.is_meta:
            self.regenerate()

    def regenerate(self) -> None:
        """Draw P from the seed, in float32 values whatever its dtype: one P for all dtypes."""
        generator = torch.Generator().manual_seed(self.seed)
        p = torch.randn(self.projection.shape, generator=generator, dtype=torch.float64)
        self.saved_seed.fill_(self.seed)
        self.projection.copy_((p / p.norm(dim=0)).float())

    def _load_from_state_dict(self, *args: Any) -> None:  # type: ignore[override]
        """Load as torch does, then draw the P that belongs to the loaded psi."""
        super()._load_from_state_dict(*args)
        if not self.saved_seed.is_meta and self.saved_seed.item() != self.seed:
            self.seed = int(self.saved_seed)
            self.regenerate()

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """theta0 + P psi, cut into the tensors."""
        flat = self.theta0 + self.projection @ self.psi
        parts = flat.split([prod(shape) for shape in self.shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Least squares in psi around theta0."""
        flat = torch.cat([theta[name].flatten() for name in self.shapes]) - self.theta0
        self.psi.copy_(torch.linalg.lstsq(self.projection, flat[:, None]).solution[:, 0])
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """Names, dimension, seed; theta0 is saved with psi."""
        return {"names": list(self.shapes), "dim": self.projection.shape[1], "seed": self.seed}

    @classmethod
    def build(  # type: ignore[override]
        cls, net: nn.Module, *, names: list[str], dim: int, seed: int
    ) -> Self:
        """A subspace around the net's present weights."""
        tensors = dict(net.named_parameters(remove_duplicate=False))
        return cls({name: tensors[name] for name in names}, dim, seed)

    @classmethod
    def example(cls) -> Example:
        """Seven coordinates for a small net."""
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        chart = cls(dict(model.named_parameters()), dim=7, seed=0)
        return Example(model, chart, torch.randn(3, 2, 6, 6))
