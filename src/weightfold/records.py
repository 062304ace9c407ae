"""JSON that files hold, read with limits: its size, its depth, its fields, a hash of its content.

What a record may hold is said by a type: a TypedDict or a dataclass, of str, int, float, bool,
lists, dicts, Literals, unions and `Annotated` types. The hash is there against accidents; who
changes a file on purpose writes the hash that belongs to it.
"""

import hashlib
import json
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from weightfold.files import write_json

SEAL = "sha256"
MAX_BYTES = 2**26
MAX_DEPTH = 64
MAX_INT = 2**64
UNRECORDED = {"recorded": False}
"""Metadata of a dataclass field that stands in no record; it needs a default."""


def within(low: int, high: int) -> Callable[[int], str | None]:
    """A check for `Annotated`: a number from `low` to `high`."""
    return lambda value: None if low <= value <= high else f"not from {low:,} to {high:,}"


def matching(pattern: str, name: str) -> Callable[[str], str | None]:
    """A check for `Annotated`: text that a regular expression matches, whose `name` errors say."""
    return lambda value: None if re.fullmatch(pattern, value) else f"no {name}"


def write_record(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` as JSON with its hash, for `read_record`.

    Raises:
        OSError: As `weightfold.files.replacing`.
    """
    write_json(path, sealed(data))


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the hash over all of it, the order of its keys included, under `SEAL`."""
    return {**data, SEAL: content_hash(data)}


def content_hash(data: Mapping[str, Any]) -> str:
    """The sha256 of JSON values without what is under `SEAL`."""
    plain = {key: value for key, value in data.items() if key != SEAL}
    return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def read_record(path: Path, kind: Any = dict) -> dict[str, Any]:
    """Read a JSON object, and check all that is said of it before it is used.

    Args:
        path: Of the file.
        kind: What it has to hold. Further fields are allowed in a TypedDict, not in a dataclass.

    Returns:
        Plain JSON values, which are as `kind` says; a dataclass is not made of them. The hash, if
        there is one, is still under `SEAL`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger than `MAX_BYTES`, no JSON, nested deeper than `MAX_DEPTH`, names a
            key twice, is not what `kind` says, or has a hash that is not its content's. The
            message names the file and the field.
    """
    text = _text(path)
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is damaged: it holds {_shown(data)} where an object should be")
    if _deep(data):
        raise ValueError(f"{path} is damaged: it is nested deeper than {MAX_DEPTH} levels")
    if (problem := next(_problems(data, kind, ""), None)) is not None:
        raise ValueError(f"{path} is damaged: {problem}")
    if SEAL in data and data[SEAL] != content_hash(data):
        raise ValueError(f"{path} was changed: its content is not what its sha256 was taken of")
    return data


def conform(data: Any, kind: Any, where: str) -> None:
    """Check JSON values that are read already.

    Raises:
        ValueError: They are not what `kind` says; the message begins with `where`.
    """
    if (problem := next(_problems(data, kind, ""), None)) is not None:
        raise ValueError(f"{where}: {problem}")


def fits(data: Any, kind: Any) -> bool:
    """Whether JSON values are what `kind` says."""
    return next(_problems(data, kind, ""), None) is None


@cache
def object_fields(kind: Any) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Recorded fields of a TypedDict or a dataclass with their types; and those that must be there.

    Args:
        kind: The class; where it is generic, without its arguments.
    """
    hints = get_type_hints(kind, include_extras=True)
    if is_typeddict(kind):
        return hints, tuple(sorted(kind.__required_keys__))
    own = {f.name: f for f in fields(kind) if f.init and f.metadata.get("recorded", True)}
    required = (n for n, f in own.items() if f.default is MISSING and f.default_factory is MISSING)
    return {name: hints[name] for name in own}, tuple(sorted(required))


def file_hash(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: Path) -> str:
    """What is in a file of bounded size."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is damaged: it is no file")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is damaged: larger than {MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is no UTF-8 text ({error})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def _deep(data: Any) -> bool:
    """Whether data is nested too deep; found without recursion."""
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for holder in level
            for value in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(value, dict | list)
        ]
        if not level:
            return False
    return True


def _problems(value: Any, kind: Any, at: str) -> Iterator[str]:
    """What is wrong with a value, each with the path of its field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return
    if origin is NotRequired:
        yield from _problems(value, arguments[0], at)
        return
    if origin is Annotated:
        inner, *checks = arguments
        if (first := next(_problems(value, inner, at), None)) is not None:
            yield first
            return
        yield from (f"{_named(at)} is {_shown(value)}, {p}" for c in checks if (p := c(value)))
    elif origin in (Union, types.UnionType):
        found = [next(_problems(value, one, at), None) for one in arguments]
        if None not in found:
            yield _wrong(value, kind, at)
    elif origin is Literal:
        if value not in arguments or isinstance(value, bool) is not isinstance(arguments[0], bool):
            yield _wrong(value, kind, at)
    elif is_typeddict(kind) or is_dataclass(kind):
        yield from _of_object(value, kind, at)
    elif (origin or kind) in (list, tuple, Sequence):
        yield from _of_list(value, kind, at)
    elif (origin or kind) in (dict, Mapping):
        if not isinstance(value, dict):
            yield _wrong(value, kind, at)
        elif arguments and arguments[1] is not Any:
            for key, item in value.items():
                yield from _problems(item, arguments[1], f"{at}.{key[:80]}" if at else key[:80])
    elif not _is_plain(value, kind):
        yield _wrong(value, kind, at)


def _of_object(value: Any, kind: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _wrong(value, kind, at)
        return
    hints, required = object_fields(kind)
    unknown = [] if is_typeddict(kind) else [name for name in value if name not in hints]
    if unknown:
        yield f"{_named(at)} has a field {unknown[0][:80]!r}, which is unknown"
    for name in required:
        if name not in value:
            yield f"{_named(at)} lacks {name!r}"
    for name, hint in hints.items():
        if name in value:
            yield from _problems(value[name], hint, f"{at}.{name}" if at else name)


def _of_list(value: Any, kind: Any, at: str) -> Iterator[str]:
    arguments = get_args(kind)
    if not isinstance(value, list):
        yield _wrong(value, kind, at)
    elif not arguments:
        return
    elif get_origin(kind) is tuple and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            yield f"{_named(at)} has {len(value)} values, not {len(arguments)}"
        for i, (item, one) in enumerate(zip(value, arguments, strict=False)):
            yield from _problems(item, one, f"{at}[{i}]")
    elif arguments[0] is not Any:
        for i, item in enumerate(value):
            yield from _problems(item, arguments[0], f"{at}[{i}]")


def _is_plain(value: Any, kind: Any) -> bool:
    """Whether a value is a str, a number, a bool or null, as `kind` says."""
    if kind in (None, type(None)):
        return value is None
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (isinstance(value, float) or abs(value) < MAX_INT)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INT
    if kind is str:
        return isinstance(value, str) and value.isascii() | _encodes(value)
    return isinstance(value, kind)


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _wrong(value: Any, kind: Any, at: str) -> str:
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return f"{_named(at)} is {_shown(value)}, not {name.replace('typing.', '')}"


def _named(at: str) -> str:
    return repr(at) if at else "it"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {type(value).__name__}"
    text = json.dumps(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
