"""The projections by name."""

from math import isqrt
from typing import Literal

from torch import Tensor

from weightfold.methods.subspace.projections.base import Projection
from weightfold.methods.subspace.projections.dense import Dense
from weightfold.methods.subspace.projections.fastfood import Fastfood
from weightfold.methods.subspace.projections.sparse import Sparse
from weightfold.methods.subspace.projections.srht import BlockSRHT

Kind = Literal["srht", "dense", "sparse", "fastfood"]

KINDS: dict[Kind, type[Projection]] = {
    "srht": BlockSRHT,
    "dense": Dense,
    "sparse": Sparse,
    "fastfood": Fastfood,
}


def _check(kind: Kind, size: int, dim: int) -> None:
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind={kind!r}; give one of {', '.join(KINDS)}")
    if not 1 <= dim <= size:
        raise ValueError(f"dim={dim} must be between 1 and the {size} weights chosen")


def projection_numbers(kind: Kind, size: int, dim: int) -> int:
    """How many numbers the constants of a projection are, about; arguments and errors as `make`."""
    _check(kind, size, dim)
    return {"dense": size * dim, "sparse": 2 * dim * isqrt(size)}.get(kind, 2 * size)


def make(kind: Kind, size: int, dim: int, like: Tensor) -> Projection:
    """A projection whose constants are not drawn yet.

    Args:
        kind: One of `KINDS`.
        size: D, rows.
        dim: d, columns.
        like: A tensor of the device and dtype to compute in.

    Raises:
        ValueError: `kind` is unknown, or `dim` below 1 or above `size`.
    """
    _check(kind, size, dim)
    return KINDS[kind](size, dim, like)
