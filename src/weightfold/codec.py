"""Dataclasses as JSON values and back, by their type hints, as `weightfold.records` checks them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from weightfold.records import conform, fits, object_fields

T = TypeVar("T")


def encode(value: Any) -> Any:
    """JSON values of dataclasses, mappings, sequences and plain values, however nested.

    Fields with the metadata `weightfold.records.UNRECORDED` are left out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        named = (f.name for f in fields(value) if f.metadata.get("recorded", True))
        return {name: encode(getattr(value, name)) for name in named}
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
        ValueError: They are not what `kind` says (the message names the field), or a dataclass
            refuses its values.
    """
    conform(data, kind, f"no {kind.__name__}")
    return _made(data, kind)


def _made(data: Any, kind: Any) -> Any:
    """What values that fit a type are made into."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return _made(data, next(one for one in arguments if fits(data, one)))
    if origin is Annotated:
        return _made(data, arguments[0])
    if is_dataclass(origin):
        hints, _ = object_fields(origin)
        return origin(**{name: _made(value, hints[name]) for name, value in data.items()})  # type: ignore[operator]
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return tuple(_made(value, one) for value, one in zip(data, arguments, strict=True))
    if origin in (tuple, list, Sequence):
        inner = arguments[0] if arguments else Any
        return (list if origin is list else tuple)(_made(value, inner) for value in data)
    if origin in (dict, Mapping):
        key, inner = arguments or (str, Any)
        read_key = int if key is int else str
        return {read_key(name): _made(value, inner) for name, value in data.items()}
    return float(data) if origin is float else data
