"""Inputs that are the same point."""

import hashlib

import torch
from torch import Tensor


def first_equal(x: Tensor) -> Tensor:
    """For each of (N, ...), the index of the first that is equal to it, int64 (N,)."""
    flat = x.reshape(len(x), -1).cpu()
    if flat.is_floating_point():
        # -0.0 and 0.0 are one value of different bytes.
        flat = flat + 0.0
    seen: dict[bytes, int] = {}
    rows = enumerate(flat.contiguous().view(torch.uint8).numpy())
    return torch.tensor([seen.setdefault(hashlib.sha256(row).digest(), i) for i, row in rows])


def contradictions(x: Tensor, y: Tensor) -> int:
    """How many labels (N,) any function of `x` gets wrong, because equal points have others.

    Of equal points it can be right for those with their most frequent label.
    """
    first, y = first_equal(x), y.cpu()
    pairs, counts = torch.stack([first, y]).unique(dim=1, return_counts=True)
    most = torch.zeros(len(y), dtype=torch.int64)
    most.scatter_reduce_(0, pairs[0], counts, "amax")
    return len(y) - int(most.sum())
