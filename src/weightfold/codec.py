"""Dataclasses as JSON values and back, by their type hints."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

UNRECORDED = {"recorded": False}
"""Metadata of a dataclass field that `encode` leaves out; it needs a default."""


def encode(value: Any) -> Any:
    """JSON values of dataclasses, mappings, sequences and plain values, however nested."""
    if is_dataclass(value) and not isinstance(value, type):
        named = ((f.name, getattr(value, f.name)) for f in fields(value) if _recorded(f))
        return {name: encode(inner) for name, inner in named}
    if isinstance(value, Mapping):
        return {str(key): encode(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode(inner) for inner in value]
    return value


def decode(data: Any, kind: type[T]) -> T:
    """What `encode` made JSON values of.

    Args:
        data: JSON values.
        kind: A dataclass, or a type of its fields: builtin types, Literals, Any, tuples, sequences,
            mappings and unions, of which the first member that fits is taken.

    Raises:
        KeyError: A field without default is missing.
        TypeError: A value is of another type.
        ValueError: A field is unknown, or a dataclass refuses its values.
    """
    return _decoded(data, kind)


def _decoded(data: Any, kind: Any) -> Any:
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(data, arguments)
    if is_dataclass(origin):
        return _object(data, origin)
    if origin in (tuple, list, Sequence):
        return _sequence(data, origin, arguments)
    if origin in (dict, Mapping):
        key, inner = arguments or (str, Any)
        read_key = int if key is int else str
        return {read_key(name): _decoded(value, inner) for name, value in _of(data, dict).items()}
    if origin is float:
        return data if isinstance(data, float) else float(_of(data, int))
    if origin in (int, str, bool):
        return _of(data, origin)
    return data


def _one_of(data: Any, kinds: tuple[Any, ...]) -> Any:
    if data is None and NoneType in kinds:
        return None
    error: Exception | None = None
    for kind in kinds:
        if kind is not NoneType:
            try:
                return _decoded(data, kind)
            except (KeyError, TypeError, ValueError) as failed:
                error = error or failed
    raise error or TypeError(f"{data!r} is not None")


def _object(data: Any, kind: Any) -> Any:
    hints = _hints(kind)
    known = {field.name: field for field in fields(kind) if _recorded(field)}
    if unknown := [name for name in _of(data, dict) if name not in known]:
        raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}")
    for name, field in known.items():
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if name not in data and not optional:
            raise KeyError(f"{kind.__name__} lacks the field {name!r}")
    return kind(**{name: _decoded(value, hints[name]) for name, value in data.items()})


def _sequence(data: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
    items = _of(data, list)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(items) != len(arguments):
            raise ValueError(f"{len(items)} values, where {len(arguments)} belong")
        return tuple(_decoded(v, one) for v, one in zip(items, arguments, strict=True))
    inner = arguments[0] if arguments else Any
    found = (_decoded(value, inner) for value in items)
    return list(found) if origin is list else tuple(found)


def _of(data: Any, kind: type) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise TypeError(f"{data!r} is a {type(data).__name__}, where a {kind.__name__} belongs")
    return data


def _recorded(field: Any) -> bool:
    return field.metadata.get("recorded", True)


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)
