"""Tensors in one safetensors file that holds the hash of what is in it, against accidents."""

import hashlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from weightfold.files import replacing

LABEL = "weightfold"
HASH = "sha256"
LABELS: tuple[set[str], ...] = (set(), {HASH}, {"base", "part"})
"""What stands under `LABEL`: nothing, a hash, or the part of a saved net that the file is."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write copies of tensors, of any layout and device, with the hash of all of them.

    Raises:
        OSError: As `weightfold.files.replacing`.
    """
    whole = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
    label = json.dumps({HASH: tensors_hash(dict(sorted(whole.items())))})
    with replacing(path) as temporary:
        temporary.write_bytes(serialize(whole, {LABEL: label}))


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
