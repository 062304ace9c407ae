"""A very sparse projection."""

from math import isqrt

import torch
from torch import Tensor

from weightfold.methods.subspace.projections.base import Projection


class Sparse(Projection):
    """P with m = floor(sqrt(D)) entries +-1 / sqrt(m) in each column.

    One entry stands in each of m stretches of D / m rows, so that columns have norm 1 exactly and
    all are equally full; Li et al. keep each entry with probability 1 / sqrt(D) instead.

    Source: Li, Hastie and Church 2006, "Very sparse random projections"; the stretches are those
    of Kane and Nelson 2014.
    """

    constants = ("rows", "entries")
    rows: Tensor
    entries: Tensor

    def __init__(self, size: int, dim: int, like: Tensor) -> None:
        super().__init__(size, dim, like)
        self._filled = isqrt(size)
        rows = torch.zeros(dim, self._filled, dtype=torch.int64, device=like.device)
        self.constant("rows", rows)
        self.constant("entries", like.new_empty(dim, self._filled))

    def draw(self, seed: int) -> None:
        """Draw places and signs."""
        generator = torch.Generator().manual_seed(seed)
        edges = torch.arange(self._filled + 1) * self.size // self._filled
        where = torch.rand(self.rows.shape, generator=generator, dtype=torch.float64)
        self.rows.copy_(edges[:-1] + (where * (edges[1:] - edges[:-1])).long())
        signs = torch.randint(0, 2, self.rows.shape, generator=generator) * 2 - 1
        self.entries.copy_(signs * self._filled**-0.5)

    def forward(self, psi: Tensor) -> Tensor:
        """P psi, (D,), of psi (d,)."""
        values = (self.entries * psi[:, None]).flatten()
        return psi.new_zeros(self.size).index_add(0, self.rows.flatten(), values)
