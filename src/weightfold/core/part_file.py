"""Files of a save read into memory once, and checked as they were read."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightfold.core.store import LABEL, check_label, entry_of, existing_file

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "U16": torch.uint16, "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64,
    "U64": torch.uint64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "C64": torch.complex64,
}  # fmt: skip
"""safetensors' names of dtypes."""


Spot = tuple[torch.dtype, list[int], int, int]
"""Dtype, shape, first byte and end of a tensor in a file."""


class Stored(Mapping[str, Tensor]):
    """Tensors of a file by name, in memory that is this process's own; each is made when taken.

    safetensors reads from memory only by copying every tensor; here all are views of the one
    buffer. Neither they nor where they are is kept after a walk through all of them: of hundreds of
    tensors of a few kilobytes that would add a tenth.

    Args:
        content: Of a safetensors file; kept.

    Attributes:
        label: What the file says of itself under `LABEL`.

    Raises:
        ValueError: It is no safetensors file.
    """

    def __init__(self, content: bytearray) -> None:
        self._content = content
        self._spots: dict[str, Spot] | None
        try:
            self._spots, self.label = _read_header(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is no safetensors file: {error}") from error

    def _known(self) -> dict[str, Spot]:
        if (spots := self._spots) is None:
            spots = self._spots = _read_header(self._content)[0]
        return spots

    def __getitem__(self, name: str) -> Tensor:
        dtype, shape, begin, end = self._known()[name]
        if begin == end:
            return torch.empty(shape, dtype=dtype)
        count = (end - begin) // dtype.itemsize
        return torch.frombuffer(self._content, dtype=dtype, count=count, offset=begin).view(shape)

    def __iter__(self) -> Iterator[str]:
        yield from self._known()
        self._spots = None

    def __len__(self) -> int:
        return len(self._known())


def _read_header(content: bytearray) -> tuple[dict[str, Spot], dict[str, Any]]:
    """Where each tensor is, by name; and what the file says of itself."""
    start = 8 + int.from_bytes(content[:8], "little")
    entries: dict[str, Any] = json.loads(content[8:start])
    label: dict[str, Any] = json.loads(entries.pop("__metadata__", {}).get(LABEL, "{}"))
    spots = {name: _spot(entry, start) for name, entry in entries.items()}
    if max((end for *_, end in spots.values()), default=start) > len(content):
        raise ValueError("it ends before its last tensor")
    return spots, label


def _spot(entry: Mapping[str, Any], start: int) -> Spot:
    dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
    begin, end = entry["data_offsets"]
    if begin < 0 or min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"{shape} of {entry['dtype']} are not the bytes {begin} to {end}")
    return dtype, shape, start + begin, start + end


def read_part(folder: Path, manifest: Mapping[str, Any], part: str | None) -> Stored:
    """A part's tensors, read once and checked as they were read; None: the shared ones.

    Whatever then happens to the file, what is returned stays as it is.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged or changed, another part's, or was saved with other shared
            tensors than the folder's.
    """
    file = existing_file(folder, manifest, part)
    with file.open("rb") as opened:
        content = bytearray(os.fstat(opened.fileno()).st_size)
        # One more byte is asked for: a file that grows meanwhile is not the one saved.
        whole = opened.readinto(content) == len(content) and not opened.read(1)
    if not whole or hashlib.sha256(content).hexdigest() != entry_of(manifest, part)["sha256"]:
        raise ValueError(f"{file} is truncated or was changed: its hash is not the manifest's")
    try:
        stored = Stored(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    check_label(file, stored.label, manifest, part)
    return stored
