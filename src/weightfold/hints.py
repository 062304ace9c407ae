"""Arguments and fields held against their type hints, refused by name. Imports no torch."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

UNIONS = (Union, UnionType)


def check_fields(options: Any) -> None:
    """Hold the values of a dataclass against its annotations; for its `__post_init__`.

    Raises:
        TypeError: A value is of another type. Whole numbers do for floats, numpy's numbers for
            Python's; True and False are no numbers.
        ValueError: A value is none of its choices.
    """
    for name, hint in _hints(type(options)).items():
        if hasattr(options, name):
            check_type(name, getattr(options, name), hint)


def check_arguments(function: Callable[..., Any], **given: Any) -> None:
    """Hold some arguments of a function against its annotations.

    Raises:
        TypeError: As `check_fields`.
        ValueError: As `check_fields`.
    """
    for name, value in given.items():
        check_type(name, value, _hints(function)[name])


def check_type(name: str, value: Any, hint: Any) -> None:
    """Hold one value against a type hint.

    Raises:
        TypeError: As `check_fields`.
        ValueError: As `check_fields`.
    """
    if _fits(value, hint):
        return
    kinds = get_args(hint) if get_origin(hint) in UNIONS else (hint,)
    choices = [one for kind in kinds if get_origin(kind) is Literal for one in get_args(kind)]
    text = f"{name}={value!r:.80}; give {' or '.join(map(_named, kinds))}"
    raise (ValueError if type(value) in {type(one) for one in choices} else TypeError)(text)


@cache
def _hints(owner: Any) -> Mapping[str, Any]:
    return get_type_hints(owner)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a hint says, as far as that can be seen without using it."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0])
    if origin in UNIONS:
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if origin in (int, float):
        return not isinstance(value, bool) and _is_number(value, origin)
    if origin is Callable:
        return callable(value)
    if hint is Any or not isinstance(origin, type):  # or a type variable
        return True
    if issubclass(origin, Mapping):
        inner = arguments[1] if arguments else Any
        return isinstance(value, Mapping) and all(_fits(one, inner) for one in value.values())
    if origin is not str and issubclass(origin, Sequence):
        inner = arguments[0] if arguments else Any
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(_fits, value, arguments))
        return all(_fits(one, inner) for one in value)
    return isinstance(value, origin)


def _is_number(value: Any, kind: type) -> bool:
    if kind is float and isinstance(value, Real):
        return True
    try:
        return operator.index(value) is not None
    except TypeError:
        return False


def _named(kind: Any) -> str:
    """A type as errors say it."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if kind is NoneType:
        return "None"
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return re.sub(r"\b(typing|collections\.abc)\.", "", str(kind))
