"""Calling torchvision's data sets, which check the official checksums and can download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError

Part = TypeVar("Part")


def fetch(name: str, make: Callable[..., Part], root: Path, **options: Any) -> Part:
    """A torchvision data set, whose failures name what was asked for.

    Args:
        name: Of the data set, for the message.
        make: torchvision's class.
        root: The data folder.
        **options: Of the class.

    Raises:
        OSError: torchvision could not download it, or its files are not the official ones.
    """
    try:
        return make(root, **options)
    except (RuntimeError, URLError) as error:
        raise OSError(f"{name!r} in {root}, read by torchvision: {error}") from error
