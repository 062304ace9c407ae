"""Networks that a file names: only registered ones, and none larger than what is stored of it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from weightfold.spec import parse_spec, read_value

ALWAYS = 2**30
"""Bytes that any network may take."""

TIMES = 64
"""How many times the bytes of its file a network may take, beyond that: it may be stored sparse."""

MODULES = 20_000
LARGEST_NUMBER = 1_000_000
"""In a recorded spec: lists as long as it are still made in no time."""

PLAIN_NUMBER = 10_000
"""The same for a network that cannot be planned without memory."""


def recorded_network(
    told: Collection[str], given: str | None, where: object, option: str = "--model"
) -> str:
    """The spec of the network that a file is of. A file names no code: only the user does.

    Args:
        told: What the file says: one spec, or none.
        given: What the user says; None: nothing.
        where: The file, for errors.
        option: By which a command takes `given`, for errors.

    Raises:
        ValueError: The file says nothing, several, or "module:function", and the user nothing; or
            they disagree.
    """
    specs = sorted(told)
    if given is not None and specs not in ([], [given]):
        raise ValueError(
            f"model={given!r}: {where} is of {', '.join(specs)}; give that, or leave {option} out"
        )
    if given is not None:
        return given
    if len(specs) != 1:
        raise ValueError(f"{where} does not say what network it is of; give {option}")
    try:
        code = names_code(specs[0])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if code:
        raise ValueError(
            f"{where} names code as its network, {specs[0]!r}, and nothing that a file names is "
            f"run; if it is your own code, name it yourself with {option}"
        )
    return specs[0]


def names_code(spec: str) -> bool:
    """Whether a spec is of a "module:function"."""
    return ":" in parse_spec(spec)[0]


def check_recorded(
    make: Callable[[], nn.Module], specs: Sequence[str], *, stored: int, where: object
) -> None:
    """Refuse a recorded network that is far larger than what is stored of it, before it is made.

    It is made on the meta device, without memory, as far as the bound. Where that does not work
    (torchvision's RegNets), numbers of its specs beyond `PLAIN_NUMBER` are refused instead; those
    beyond `LARGEST_NUMBER` always are.

    Args:
        make: Makes it.
        specs: What `make` takes from the file.
        stored: Bytes of its weights' files.
        where: The file, for errors.

    Raises:
        ValueError: As said; or `make` raises it, or a TypeError.
    """
    _check_numbers(specs, LARGEST_NUMBER, where)
    try:
        with (
            _bounded(max(ALWAYS, TIMES * stored)),
            torch.random.fork_rng(devices=[]),
            torch.device("meta"),
        ):
            make()
    except _TooLarge as error:
        raise ValueError(
            f"{where} asks for {', '.join(specs)}, {error}; {stored:,} bytes of it are stored"
        ) from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} asks for {', '.join(specs)}: {error}") from error
    except (NotImplementedError, RuntimeError):
        _check_numbers(specs, PLAIN_NUMBER, where)


def _check_numbers(specs: Sequence[str], most: float, where: object) -> None:
    values = [read_value(text) for spec in specs for text in parse_spec(spec)[1].values()]
    if any(isinstance(value, int | float) and not abs(value) <= most for value in values):
        raise ValueError(
            f"{where} asks for {', '.join(specs)}; numbers beyond {most:,} are refused"
        )


class _TooLarge(Exception):
    """Raised inside `_bounded`."""


@contextmanager
def _bounded(most: int) -> Iterator[None]:
    """Inside, making modules of more than so many bytes is interrupted."""
    size, modules = 0, 0

    def weigh(module: nn.Module, name: str, tensor: Any) -> None:
        nonlocal size
        size += 0 if tensor is None else tensor.nbytes
        if size > most:
            raise _TooLarge(f"which takes more than {most:,} bytes")

    def count(module: nn.Module, name: str, child: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > MODULES:
            raise _TooLarge(f"which has more than {MODULES:,} layers")

    handles = [
        register_module_parameter_registration_hook(weigh),
        register_module_buffer_registration_hook(weigh),
        register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
