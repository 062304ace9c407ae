"""Seeds of random numbers, so that no random state need be saved. Imports no torch."""

import hashlib
from collections.abc import Sequence

from weightfold.hints import check_type


def mixed_seed(*parts: int | str) -> int:
    """A seed for each (seed, step, process, ...)."""
    mixed = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(mixed[:6])


def as_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds that are meant: a count n stands for 0 to n - 1.

    Raises:
        TypeError: They are no whole numbers.
        ValueError: None, one given twice, or one that is negative or has more than 63 bits.
    """
    check_type("seeds", seeds, int | Sequence[int])
    found = tuple(seeds if isinstance(seeds, Sequence) else range(seeds))
    if not found or len(set(found)) < len(found) or not all(0 <= seed < 2**63 for seed in found):
        raise ValueError(
            f"seeds={seeds}: give at least one, each once, from 0 to below 2**63; or how many"
        )
    return found
