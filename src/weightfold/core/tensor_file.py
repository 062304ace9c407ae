"""Tensors in one safetensors file that holds the hash of what is in it, against accidents."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from weightfold.files import write_bytes

LABEL = "weightfold"
HASH = "sha256"
LABELS: tuple[set[str], ...] = (set(), {HASH}, {"base", "part"})
"""What stands under `LABEL`: nothing, a hash, or the part of a saved net that the file is."""

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


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, str] | None = None
) -> None:
    """Write copies of tensors, of any layout and device, with the hash of all of them.

    Args:
        path: Of the file.
        tensors: By name.
        told: Further texts for the file's header, by name.

    Raises:
        OSError: As `weightfold.files.replacing`.
    """
    whole = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
    label = json.dumps({HASH: tensors_hash(dict(sorted(whole.items())))})
    write_bytes(path, serialize(whole, {**(told or {}), LABEL: label}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name; memory-mapped.

    What `write_tensors` wrote is read whole and checked against its hash; a file of other origin
    holds none, and is taken as it is.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, no safetensors file, or was changed.
    """
    label = read_label(path)
    tensors = load_file(path)
    if label.get(HASH, found := tensors_hash(dict(sorted(tensors.items())))) != found:
        raise ValueError(f"{path} was changed: its tensors are not what its sha256 was taken of")
    return tensors


def read_label(path: Path) -> dict[str, Any]:
    """What this package wrote into the header of a safetensors file; {} if nothing.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated or no safetensors file, or the label was changed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or no file")
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
        label = json.loads(metadata.get(LABEL, "{}"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is truncated, changed or no safetensors file: {error}") from error
    name = next(iter(get_close_matches(LABEL, metadata, n=1, cutoff=0.7)), LABEL)
    if name != LABEL or not (isinstance(label, dict) and set(label) in LABELS):
        raise ValueError(f"{path} was changed: its label {name!r} is none of weightfold's")
    return label


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and values of tensors, in their order."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


class Stored(Mapping[str, Tensor]):
    """Tensors of a file by name, in memory that is this process's own; each is made when taken.

    safetensors reads from memory only by copying every tensor; here all are views of the one
    buffer. Neither they nor where they are is kept after a walk through all of them: of hundreds of
    tensors of a few kilobytes that would add a tenth.

    Args:
        content: Of a safetensors file; kept.

    Attributes:
        content: Of the file.
        label: What the file says of itself under `LABEL`.

    Raises:
        ValueError: It is no safetensors file.
    """

    def __init__(self, content: bytearray) -> None:
        self.content = content
        self._spots: dict[str, Spot] | None
        try:
            self._spots, self.label = _read_header(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is no safetensors file: {error}") from error

    def _known(self) -> dict[str, Spot]:
        if (spots := self._spots) is None:
            spots = self._spots = _read_header(self.content)[0]
        return spots

    def __getitem__(self, name: str) -> Tensor:
        dtype, shape, begin, end = self._known()[name]
        if begin == end:
            return torch.empty(shape, dtype=dtype)
        count = (end - begin) // dtype.itemsize
        return torch.frombuffer(self.content, dtype=dtype, count=count, offset=begin).view(shape)

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


def payload(path: Path) -> int:
    """Bytes of the tensors in a safetensors file, without its header.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated or no safetensors file.
    """
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        size = file.seek(0, 2) - 8 - header
    if size < 0:
        raise ValueError(f"{path} is truncated or no safetensors file")
    return size
