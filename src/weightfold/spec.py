"""The grammar of a spec, "name" or "name,key=value,key=value", and how its values are read."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import filter as matches
from typing import Any

Value = int | float | bool | str | None

_TRUTH = {"true": True, "false": False}


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Splits "smallnet_b,kernel_size=9" into "smallnet_b" and {"kernel_size": "9"}.

    Raises:
        TypeError: `spec` is no text.
        ValueError: No name, a part that is not `key=value`, or a key given twice.
    """
    if not isinstance(spec, str):
        raise TypeError(f"spec={spec!r:.80}; give a text, 'name' or 'name,key=value'")
    name, *parts = (part.strip() for part in spec.split(","))
    if not name or "=" in name:
        raise ValueError(f"spec={spec!r} does not start with a name; write 'name,key=value'")
    options: dict[str, str] = {}
    for part in parts:
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if not (key and equals and text):
            raise ValueError(f"spec={spec!r}: {part!r} is not an option; write 'name,key=value'")
        if key in options:
            raise ValueError(f"spec={spec!r} gives {key!r} twice; give it once")
        options[key] = text
    return name, options


def matching(names: Iterable[str], filter: str) -> list[str]:
    """The names that a glob such as "resnet*" matches, in their order.

    Raises:
        TypeError: `filter` is no string.
    """
    if not isinstance(filter, str):
        raise TypeError(f"filter={filter!r}: give a glob, such as 'resnet*'")
    return matches(names, filter)


def read_value(text: str, kind: Any = None) -> Value:
    """`text` as `kind` (int, float, bool or str), else as the first of these that it looks like.

    Raises:
        ValueError: `text` is not of that kind.
    """
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ValueError("neither 'true' nor 'false'")
        return _TRUTH[text.lower()]
    if kind in (int, float):
        return kind(text)
    if text.lower() == "none":
        return None
    for guess in (bool, int, float):
        try:
            return read_value(text, guess)
        except ValueError:
            continue
    return text


def read_options(
    name: str, options: Mapping[str, str], accepted: Mapping[str, Any]
) -> dict[str, Value]:
    """Values of a spec's options, read as the annotations in `accepted` (option -> type) say.

    Raises:
        ValueError: An option that is not in `accepted` (the message lists those that are), or a
            value that is not of its type.
    """
    values = {}
    for key, text in options.items():
        if key not in accepted:
            near = get_close_matches(key, accepted, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            listed = ", ".join(accepted) or "none"
            raise ValueError(f"{name!r} has no option {key!r}; {hint}its options: {listed}")
        try:
            values[key] = read_value(text, accepted[key])
        except ValueError:
            kind = "true or false" if accepted[key] is bool else f"of type {accepted[key].__name__}"
            raise ValueError(f"{name!r}: {key}={text!r} is not {kind}") from None
    return values
