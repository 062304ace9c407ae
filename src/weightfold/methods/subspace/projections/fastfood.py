"""Fastfood, one block of full length."""

from math import ceil, log2

import torch
import torch.nn.functional as F
from torch import Tensor

from weightfold.methods.subspace.projections.base import Projection
from weightfold.methods.subspace.projections.hadamard import (
    WIDEST,
    byte_signs,
    random_bytes,
    sylvester,
    transform_rows,
    unpack,
)


class Fastfood(Projection):
    """The first D rows and d columns of H G Pi H B / (|g| sqrt(l)), l the power of two from D up.

    H is the Walsh-Hadamard matrix, B random signs, Pi a permutation, G = diag(g) Gaussian. The l
    rows have columns of norm 1 exactly; the D kept ones about sqrt(D / l) of that, which is made up
    for by a factor sqrt(l / D): columns of norm 1 in the mean. O(D log D) operations.

    Source: Le, Sarlos and Smola 2013; Li et al. 2018, section S7, who scale per tensor.
    """

    constants = ("packed", "gauss", "order", "table", "hadamard")
    packed: Tensor
    gauss: Tensor
    order: Tensor
    table: Tensor
    hadamard: Tensor

    def __init__(self, size: int, dim: int, like: Tensor) -> None:
        super().__init__(size, dim, like)
        self._length = 2 ** max(ceil(log2(size)), 3)
        device = like.device
        packed = torch.zeros(self._length // 8, dtype=torch.uint8, device=device)
        self.constant("packed", packed)
        self.constant("gauss", like.new_empty(self._length))
        self.constant("order", torch.zeros(self._length, dtype=torch.int64, device=device))
        self.constant("table", byte_signs(like))
        self.constant("hadamard", sylvester(like))

    def draw(self, seed: int) -> None:
        """Draw B, Pi and G."""
        generator = torch.Generator().manual_seed(seed)
        gauss = torch.randn(self._length, generator=generator, dtype=torch.float64)
        self.gauss.copy_((gauss / (gauss.norm() * self.size**0.5)).float())
        self.order.copy_(torch.randperm(self._length, generator=generator))
        self.packed.copy_(random_bytes(len(self.packed), seed))
        self.table.copy_(byte_signs(self.table))
        self.hadamard.copy_(sylvester(self.hadamard))

    def forward(self, psi: Tensor) -> Tensor:
        """P psi, (D,), of psi (d,)."""
        x = F.pad(psi, (0, self._length - self.dim)) * unpack(self.packed, self.table)
        x = self._transform(x).index_select(0, self.order) * self.gauss
        return self._transform(x)[: self.size]

    def _transform(self, x: Tensor) -> Tensor:
        low = min(self._length, WIDEST)
        x = x.view(-1, low) @ self.hadamard[:low, :low]
        return transform_rows(x, self.hadamard).flatten()
