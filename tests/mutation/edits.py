"""Seeded changes to the bytes of a file: blind ones, and ones that know JSON, headers and zips."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

DEEP = 10_000


@dataclass(frozen=True)
class Canary:
    """A file that nothing may create, and ways to name code that would.

    Attributes:
        path: Of the file.
    """

    path: Path

    def __reduce__(self) -> tuple:
        """What unpickling runs."""
        return (Path.touch, (self.path,))

    @property
    def pickled(self) -> bytes:
        """A pickle that creates the file."""
        return pickle.dumps(self)

    @property
    def zipped(self) -> bytes:
        """The same as torch.save lays a file out."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", self.pickled)
            archive.writestr("archive/version", "3\n")
        return stream.getvalue()

    @property
    def specs(self) -> list[str]:
        """Specs of networks that name code: of the standard library, and of a module here."""
        return [
            f"os:system,command=touch {self.path}",
            f"pathlib:Path.touch,self={self.path}",
            f"subprocess:getoutput,cmd=touch {self.path}",
            "canary_code:make",
            "canary_code",
        ]

    def plant(self, folder: Path) -> None:
        """Write the module that `specs` names into a folder, which is to be importable."""
        text = f"import pathlib\npathlib.Path({str(self.path)!r}).touch()\ndef make(): ...\n"
        (folder / "canary_code.py").write_text(text, encoding="utf-8")


Edit = Callable[[bytes, Random, Canary], tuple[str, bytes]]
"""Content -> what was done to it, and the changed content."""


def flip(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """One to eight bits turned over."""
    changed = bytearray(content)
    at = [rng.randrange(8 * len(content)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for bit in at:
        changed[bit // 8] ^= 1 << bit % 8
    return f"bits {at} flipped", bytes(changed)


def cut(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """The end is missing."""
    kept = rng.choice((0, 1, len(content) - 1, rng.randrange(len(content))))
    return f"cut to {kept} bytes", content[:kept]


def extend(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """More bytes at the end."""
    more = rng.choice((b"\0", b"}", b"\n{}", rng.randbytes(100), content))
    return f"{len(more)} bytes more", content + more


def block(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """A stretch is zeroed, left out or there twice, or put elsewhere."""
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    piece, what = content[a:b], rng.choice(("zeroed", "left out", "twice", "moved"))
    changed = {
        "zeroed": content[:a] + bytes(b - a) + content[b:],
        "left out": content[:a] + content[b:],
        "twice": content[:b] + piece + content[b:],
        "moved": piece + content[:a] + content[b:],
    }[what]
    return f"bytes {a} to {b} {what}", changed


def replace(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """Something else altogether."""
    others = {
        "a pickle": canary.pickled,
        "a zipped pickle": canary.zipped,
        "random bytes": rng.randbytes(1000),
        "deep JSON lists": b"[" * DEEP + b"]" * DEEP,
        "deep JSON objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "null": b"null",
        "an empty object": b"{}",
        "text": b"not what it was\n",
        "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    }
    what = rng.choice(list(others))
    return f"replaced by {what}", others[what]


BLIND: tuple[Edit, ...] = (flip, flip, cut, extend, block, replace)


def edits_for(content: bytes) -> tuple[Edit, ...]:
    """The changes that suit a content; half of them know what it is."""
    if not content:
        return extend, replace
    if is_json(content):
        return (*BLIND, *[edit_json] * 8)
    if is_safetensors(content):
        return (*BLIND, *[edit_header] * 5)
    if content[:2] == b"PK":
        return (*BLIND, *[edit_member] * 5)
    return BLIND


def is_json(content: bytes) -> bool:
    """Whether it is a JSON object or list."""
    try:
        return isinstance(json.loads(content), dict | list)
    except (ValueError, RecursionError):
        return False


def is_safetensors(content: bytes) -> bool:
    """Whether it begins as a safetensors file does."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content)


def edit_json(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """One field deleted, renamed, swapped, retyped, made huge, deep, a path or code."""
    what, data = _edit_tree(json.loads(content), rng, canary)
    text = json.dumps(data, indent=rng.choice((1, None)))
    return what, text.replace('"deep"', "[" * DEEP + "]" * DEEP).encode()


def edit_header(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """One field of a safetensors header, the length in front of it made right; or that length."""
    length = int.from_bytes(content[:8], "little")
    if rng.random() < 0.15:
        lie = rng.choice((0, 1, length - 1, length + 8, len(content), 2**40, 2**64 - 1))
        return f"header length {lie}", lie.to_bytes(8, "little") + content[8:]
    what, header = edit_json(content[8 : 8 + length], rng, canary)
    return f"header: {what}", len(header).to_bytes(8, "little") + header + content[8 + length :]


def edit_member(content: bytes, rng: Random, canary: Canary) -> tuple[str, bytes]:
    """One member of a zip file changed, with a right checksum; or left out, or compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    what, how = rng.choice(("left out", "compressed", "a pickle", "changed", "changed")), 0
    if what == "left out":
        del members[name]
    elif what == "a pickle":
        members[name] = canary.pickled
    elif what == "changed" and members[name]:
        what, members[name] = rng.choice(BLIND)(members[name], rng, canary)
    else:
        how = zipfile.ZIP_DEFLATED
        members[name] += bytes(2**20)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return f"member {name}: {what}", stream.getvalue()


def _edit_tree(data: Any, rng: Random, canary: Canary) -> tuple[str, Any]:
    """A random place of a tree of JSON values, changed in place."""
    places = list(_places(data))
    if not places:
        return "made a list", [data]
    holder, key, path = rng.choice(places)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    action = rng.choice(("delete", "swap", "reverse", "rename", "value", "value", "value", "value"))
    if action == "delete":
        del holder[key]
    elif action == "swap":
        other = rng.choice(keys)
        holder[key], holder[other] = holder[other], holder[key]
        path += f" with {other}"
    elif action == "reverse":
        _reversed(holder)
    elif action == "rename" and isinstance(holder, dict):
        holder[rng.choice(["", "x", "../x", "/x", "x" * 300, "a.b.c", "é"])] = holder.pop(key)
    else:
        holder[key] = value = _other(holder[key], rng, canary)
        action = f"made {str(value)[:60]!r}"
    return f"{path} {action}", data


def _places(data: Any, path: str = "") -> Any:
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield data, key, f"{path}/{key}"
        if isinstance(value, dict | list):
            yield from _places(value, f"{path}/{key}")


def _reversed(holder: Any) -> None:
    if isinstance(holder, list):
        holder.reverse()
    else:
        items = list(holder.items())[::-1]
        holder.clear()
        holder.update(items)


def _other(value: Any, rng: Random, canary: Canary) -> Any:
    """A value that should not be where `value` is."""
    huge = (10**12, 10**13, 2**31, 2**63, 10**30, -1, 0, 1, 1e308, float("nan"), float("inf"))
    names = ("../../x", "/etc/passwd", "x" * 300, "a\0b", "", "\ud800", "é", "deep", "CON", ".")
    kinds = (None, True, [], {}, [value], {"x": value}, str(value), 3.5, "deep", [0] * 1000)
    return rng.choice([rng.choice(huge), rng.choice(names), rng.choice(kinds),
                       rng.choice(canary.specs)])  # fmt: skip
