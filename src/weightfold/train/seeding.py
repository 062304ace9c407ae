"""Seeds of random numbers, so that no random state need be saved. Imports no torch."""

import hashlib


def mixed_seed(*parts: int | str) -> int:
    """A seed for each (seed, step, process, ...)."""
    mixed = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(mixed[:6])
