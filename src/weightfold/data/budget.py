"""How much memory one file of data may ask for, checked before any of it is taken."""

import math
import os
from pathlib import Path

BUDGET_VARIABLE = "WEIGHTFOLD_DATA_GB"
DEFAULT_GB = 8.0
RATIO = 200
RATIO_FROM = 500_000_000
MAX_CLASSES = 1_000_000
"""More classes than any public set has; a label beyond is an error in the file."""

# Deflate cannot pack more tightly than 1032 to 1 (zlib's technical details); headers add a little.
_DEFLATE = 1032


def check_bytes(what: Path | str, needed: int, packed: int | None = None) -> None:
    """Refuse data that would not fit in the budget.

    The budget is 8 GB (10^9 bytes) for what one file unpacks to, or what $WEIGHTFOLD_DATA_GB says.
    Unless that is set, packed data is also refused that unpacks to more than 0.5 GB and 200 times
    its size.

    Args:
        what: The file, or the option, that asks for the memory.
        needed: Bytes it asks for.
        packed: Bytes of the same data as stored, if deflated (zip, gzip).

    Raises:
        ValueError: It asks for too much, or for more than its packed bytes can hold, or
            $WEIGHTFOLD_DATA_GB is not a positive number.
    """
    limit = budget()
    if needed > limit:
        raise ValueError(
            f"{what} asks for {needed:,} bytes of memory, more than the {limit:,} that data may "
            f"take; if that is meant, set {BUDGET_VARIABLE}={math.ceil(needed / 1e9)}"
        )
    if packed is None:
        return
    if needed > _DEFLATE * (packed + 64):
        raise ValueError(
            f"{what} declares {needed:,} bytes, more than its {packed:,} packed bytes can hold; "
            "get it again"
        )
    if BUDGET_VARIABLE not in os.environ and needed > max(RATIO_FROM, RATIO * packed):
        raise ValueError(
            f"{what} unpacks {packed:,} bytes to {needed:,}, more than {RATIO} times as many; if "
            f"that is meant, set {BUDGET_VARIABLE}={DEFAULT_GB:g}"
        )


def budget() -> int:
    """Bytes that one file of data may take in memory.

    Raises:
        ValueError: $WEIGHTFOLD_DATA_GB is not a positive number.
    """
    text = os.environ.get(BUDGET_VARIABLE, str(DEFAULT_GB))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{BUDGET_VARIABLE}={text!r} is not a positive number of GB (10^9 bytes)")
    return int(value * 1e9)


def check_regular(path: Path) -> None:
    """Refuse a pipe, a device or a folder in the place of a file; opening a pipe would wait.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: It is no regular file, nor a link to one.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file; put the file itself there")
