"""Arguments of verbs, refused by name before anything is allocated."""

import operator
import os
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from weightfold.core.charted import Charted

SEEDS = 2**63
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
Options = TypeVar("Options")


def unwrapped(net: Any, argument: str = "net") -> nn.Module:
    """The module inside what torch.compile, DataParallel and DistributedDataParallel make of one.

    Raises:
        TypeError: `net` is no module, or a class; or it holds a Charted net inside.
    """
    if isinstance(net, type):
        raise TypeError(f"{argument} is the class {net.__name__}; give a module, {net.__name__}()")
    if not isinstance(net, nn.Module):
        raise TypeError(f"{argument} is a {type(net).__name__}; give a torch.nn.Module")
    found: Any = net
    while isinstance(inner := getattr(found, "_orig_mod", None), nn.Module) or isinstance(
        found, WRAPPERS
    ):
        found = found.module if inner is None else inner
    plain = found
    while isinstance(plain, Charted):
        plain = plain.model
    inside = [path for path, module in plain.named_modules() if isinstance(module, Charted)]
    if inside:
        raise TypeError(
            f"{argument} is a {type(net).__name__} that holds a Charted net at {inside[0]!r}; give "
            "that one, or the whole with what its deploy() gives in its place"
        )
    return found


def check_values(net: nn.Module, argument: str = "net", *, meta: bool = False) -> None:
    """Refuse a network whose tensors have no values.

    Args:
        net: A module.
        argument: What the caller calls it.
        meta: Let tensors on the meta device pass.

    Raises:
        ValueError: A tensor is lazy or on the meta device.
    """
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if isinstance(tensor, UninitializedTensorMixin):
            raise ValueError(
                f"{argument}: {name!r} of a lazy layer has no shape yet; run the model once on an "
                "example input"
            )
        if tensor.is_meta and not meta:
            raise ValueError(f"{argument}: {name!r} is on the meta device and has no values")


def whole(value: Any, argument: str, *, least: int | None = None) -> int:
    """`value` as an int.

    Raises:
        TypeError: It is of another type; a float is one, even 3.0.
        ValueError: It is below `least`.
    """
    try:
        number = operator.index(None if isinstance(value, bool) else value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{argument}={value!r} is no int") from None
    if least is not None and number < least:
        raise ValueError(f"{argument}={number}; give at least {least}")
    return number


def as_path(value: Any, argument: str) -> Path:
    """`value`, a str or path.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{argument}={value!r}; give a str or a Path")
    return Path(value)


def real(value: Any, argument: str) -> float:
    """`value`, a number.

    Raises:
        TypeError: It is no real number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument}={value!r} is no number")
    return value  # type: ignore[return-value]


def checked_seed(seed: Any) -> int:
    """`seed` as an int.

    Raises:
        TypeError: It is of another type.
        ValueError: It is negative, or has more than 63 bits.
    """
    if not 0 <= (number := whole(seed, "seed")) < SEEDS:
        raise ValueError(f"seed={number}; give 0 or more, below 2**63")
    return number


def check_choices(given: Mapping[str, Any], choices: Mapping[str, Collection[Any]]) -> None:
    """Refuse values that are none of an argument's choices.

    Args:
        given: Argument -> value.
        choices: Argument -> what it may be.

    Raises:
        ValueError: One is something else.
    """
    for argument, value in given.items():
        if not any(type(value) is type(choice) and value == choice for choice in choices[argument]):
            raise ValueError(f"{argument}={value!r}; choose one of {tuple(choices[argument])}")


def gathered(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Options from keyword arguments: `options` is a whole `kind`, others are its fields.

    Args:
        kind: A frozen dataclass.
        given: What a verb got.

    Raises:
        TypeError: `options` is of another type, `kind` has no such field, or one without a default
            is not given.
    """
    values = {name: value for name, value in given.items() if name != "options"}
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise TypeError(f"{unknown[0]!r} is no argument; further options are {', '.join(known)}")
    if "options" not in given:
        return kind(**values)
    if not isinstance(base := given["options"], kind):
        raise TypeError(f"options={base!r}; give {kind.__name__}(...)")
    return replace(base, **values)  # type: ignore[type-var]


def device_of(device: Any) -> torch.device:
    """The device that is meant; "auto": an accelerator if there is one, else the CPU.

    Raises:
        TypeError: `device` is no text and no device.
        ValueError: There is no such device here.
    """
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device={device!r}; give 'auto', 'cpu', 'cuda', 'mps' or a torch.device")
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        told = str(error).partition("\n")[0]
        raise ValueError(f"device={str(device)!r} cannot be used here: {told}") from error


def check_memory(what: str, size: int) -> None:
    """Refuse what this machine's memory cannot hold.

    Args:
        what: The argument as given, and what it makes.
        size: Bytes.

    Raises:
        MemoryError: `size` is more than all memory; where the system does not tell, nothing.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if size > there:
        needed = f"{size / 1e9:,.0f}" if size < 1e18 else "more than 1,000,000,000"
        raise MemoryError(f"{what} of {needed} GB; this machine has {there / 1e9:,.0f} GB")
