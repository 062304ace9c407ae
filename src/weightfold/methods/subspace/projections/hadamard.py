"""The Walsh-Hadamard transform as a few matrix products, and random signs kept as bits."""

import torch
from torch import Tensor

WIDEST = 64
"""Size of the largest factor that is applied as a matrix."""


def sylvester(like: Tensor, size: int = WIDEST) -> Tensor:
    """Sylvester's Hadamard matrix (size, size), of a power of two; its corners are the smaller."""
    matrix = torch.ones(1, 1, device=like.device, dtype=like.dtype)
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], device=like.device, dtype=like.dtype)
    while matrix.shape[0] < size:
        matrix = torch.kron(step, matrix)
    return matrix


def transform_rows(x: Tensor, matrix: Tensor) -> Tensor:
    """H x for x (n, M), n a power of two, H of Sylvester's order n; not normalised.

    Args:
        x: (n, M).
        matrix: `sylvester(x)`.
    """
    rows, width = x.shape
    if rows <= WIDEST:
        return matrix[:rows, :rows] @ x
    # H_n is a Kronecker product: one factor along each digit of the row's number.
    low = matrix @ x.reshape(rows // WIDEST, WIDEST, width)
    high = transform_rows(low.reshape(rows // WIDEST, WIDEST * width), matrix)
    return high.view(rows, width)


def byte_signs(like: Tensor) -> Tensor:
    """(256, 8): the eight signs, 1 for bit 0 and -1 for bit 1, that a byte stands for."""
    place = torch.arange(256, device=like.device)
    return (1 - 2 * (place[:, None] >> place[:8] & 1)).to(like)


def random_bytes(count: int, seed: int) -> Tensor:
    """uint8 (count,) from a seed, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    options = {"dtype": torch.uint8, "device": "cpu"}
    return torch.randint(0, 256, (count,), generator=generator, **options)


def unpack(packed: Tensor, table: Tensor) -> Tensor:
    """Signs (8 n,) of bytes (n,); `table` is `byte_signs`."""
    return table.index_select(0, packed.int()).flatten()
