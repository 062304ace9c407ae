"""Variants: ways in which methods make a network that is trained, found in their folders."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from torch import Tensor, nn

from weightfold import methods


@dataclass(frozen=True)
class Variant:
    """A way to make a network that is trained; written "name,option=value".

    A method has them in `VARIANTS`, a tuple, of the module `variants` of its folder.

    Attributes:
        name: Of the variant.
        make: Of a plain network, an input (2, ...) of zeros, a seed, and the options given.
        options: Option -> its type.
        shaping: Those of the options that decide the shapes of tensors.
        plain: Its tensors have the shapes of those of the plain network.
    """

    name: str
    make: Callable[..., nn.Module]
    options: Mapping[str, type] = field(default_factory=dict)
    shaping: tuple[str, ...] = ()
    plain: bool = False


def layers_named(where: str | None) -> list[str] | None:
    """`where` of a spec, "down*+up1.*": names and globs with "+" between them."""
    return None if where is None else where.split("+")


def compact(net: nn.Module, example: Tensor, seed: int) -> nn.Module:
    """The network as it is."""
    return net


COMPACT = Variant("compact", compact, plain=True)


@cache
def variants() -> Mapping[str, Variant]:
    """Those of all methods by name, and "compact".

    Raises:
        ValueError: Two have one name.
    """
    found = {COMPACT.name: COMPACT}
    for folder in pkgutil.iter_modules(methods.__path__):
        places = [str(Path(path) / folder.name) for path in methods.__path__]
        if any(module.name == "variants" for module in pkgutil.iter_modules(places)):
            module = importlib.import_module(f"{methods.__name__}.{folder.name}.variants")
            for one in module.VARIANTS:
                if one.name in found:
                    raise ValueError(f"{module.__name__}: variant {one.name!r} exists already")
                found[one.name] = one
    return found
