"""Block subsampled randomised Hadamard transform: signs, one transform per block, signs."""

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


class BlockSRHT(Projection):
    """theta = [S_1' H S_1 psi; S_2' H S_2 psi; ...] / sqrt(D), cut off after D rows.

    H is the Walsh-Hadamard matrix of size l, the power of two from dim up, of which the first dim
    columns are used; S_b and S_b' are random signs. O(D log d) operations, and one bit a row in
    memory (rounded up to a byte): the outer signs, which read backwards are also the inner ones.

    All entries are +-1 / sqrt(D), so that columns have norm 1. They are orthogonal where l divides
    D; otherwise the last block has r = D mod l of its l rows, and their products are at most
    min(r, l - r) / D. The rank is dim always: leading rows of Sylvester's matrix are independent.

    Source: the structure is Ailon and Chazelle's (2009) and Tropp's (2011); in blocks, with the
    signs behind, it is ours, after Le, Sarlos and Smola's (2013) blocks of Fastfood.
    """

    constants = ("packed", "table", "hadamard")
    packed: Tensor
    table: Tensor
    hadamard: Tensor

    def __init__(self, size: int, dim: int, like: Tensor) -> None:
        super().__init__(size, dim, like)
        digits = ceil(log2(dim)) if dim > 1 else 0
        self._columns = min(2 ** (digits // 2), WIDEST)
        self._rows = 2**digits // self._columns
        self._whole, self._rest = divmod(size, 2**digits)
        device = like.device
        packed = torch.zeros(ceil(size / 8), dtype=torch.uint8, device=device)
        self.constant("packed", packed)
        self.constant("table", byte_signs(like))
        self.constant("hadamard", sylvester(like))

    def draw(self, seed: int) -> None:
        """Draw the signs; the other constants follow from the size."""
        self.packed.copy_(random_bytes(len(self.packed), seed))
        self.table.copy_(byte_signs(self.table))
        self.hadamard.copy_(sylvester(self.hadamard))

    def forward(self, psi: Tensor) -> Tensor:
        """P psi, (D,), of psi (d,)."""
        signs = unpack(self.packed, self.table)
        used = ceil(self.dim / self._columns)
        scaled = F.pad(psi * self.size**-0.5, (0, used * self._columns - self.dim))
        blocks = self._whole + (self._rest > 0)
        needed = used * blocks * self._columns
        inner = signs[-needed:].flip(0)
        if needed > len(inner):
            inner = torch.cat([inner, inner[: needed - len(inner)]])
        x = scaled.view(used, 1, self._columns) * inner.view(used, blocks, self._columns)
        # In the order (row, block, column) of a block's entries both factors are plain products.
        x = x.reshape(-1, self._columns) @ self.hadamard[: self._columns, : self._columns]
        x = x.view(used, blocks * self._columns)
        if not self._rest:
            return self._mixed(x) * signs[: self.size]
        # Not by slices, whose backward fills a whole tensor with zeros each.
        whole, last = x.split([self._whole * self._columns, self._columns], dim=1)
        x = torch.cat([self._mixed(whole), self._mixed(last)[: self._rest]])
        return x * signs[: self.size]

    def _mixed(self, x: Tensor) -> Tensor:
        """The transform along the rows of x (used rows, M), flat."""
        if self._rows <= WIDEST:
            return (self.hadamard[: self._rows, : len(x)] @ x).flatten()
        return transform_rows(F.pad(x, (0, 0, 0, self._rows - len(x))), self.hadamard).flatten()
