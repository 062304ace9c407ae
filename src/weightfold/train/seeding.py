"""Seeds of random numbers, so that no random state need be saved. Imports no torch."""

import hashlib
from collections.abc import Sequence


def mixed_seed(*parts: int | str) -> int:
    """A seed for each (seed, step, process, ...)."""
    mixed = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(mixed[:6])


def as_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds that are meant: a count n stands for 0 to n - 1.

    Raises:
        ValueError: None, or one given twice.
    """
    found = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds={seeds}: give at least one, each once; or how many")
    return found
