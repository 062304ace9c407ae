"""A dense Gaussian projection."""

import torch
from torch import Tensor

from weightfold.methods.subspace.projections.base import Projection


class Dense(Projection):
    """P with Gaussian entries, each column scaled to norm 1: D x d numbers in memory.

    Source: Li et al. 2018, section 2: "dense".
    """

    constants = ("entries",)
    entries: Tensor

    def __init__(self, size: int, dim: int, like: Tensor) -> None:
        super().__init__(size, dim, like)
        self.constant("entries", like.new_empty(size, dim))

    def draw(self, seed: int) -> None:
        """Draw P."""
        generator = torch.Generator().manual_seed(seed)
        p = torch.randn(self.entries.shape, generator=generator, dtype=torch.float64)
        self.entries.copy_((p / p.norm(dim=0)).float())

    def forward(self, psi: Tensor) -> Tensor:
        """P psi, (D,), of psi (d,)."""
        return self.entries @ psi
