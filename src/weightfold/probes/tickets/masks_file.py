"""Tickets on disk: a mask for each level and trial, and what the trial's tickets start from.

The index, written last, names the files by their content: a reader finds the masks that were there
before or those that are there after, whole.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from weightfold.core.part_file import write_hashed
from weightfold.core.tensor_file import read_tensors
from weightfold.files import BRIEFLY, locked, settled
from weightfold.probes.tickets.prune import Masks
from weightfold.records import file_hash, read_record, write_record

INDEX = "masks.json"
_MASK = re.compile(r"mask-level-(\d+)-seed-(\d+)(-[0-9a-f]+)?\.safetensors")
_START = re.compile(r"start-seed-(\d+)(-[0-9a-f]+)?\.safetensors")


class Index(TypedDict):
    """What masks.json holds: name of a file -> its sha256."""

    files: dict[str, str]


def write_masks(
    folder: Path | str,
    masks: Mapping[tuple[int, int], Masks],
    starts: Mapping[int, Mapping[str, Tensor]],
) -> None:
    """Write what `LotteryTicket.save_masks` says."""
    folder = Path(folder)
    prefixes = {f"mask-level-{level:02}-seed-{seed}-": t for (level, seed), t in masks.items()}
    prefixes |= {f"start-seed-{seed}-": tensors for seed, tensors in starts.items()}
    with locked(folder, BRIEFLY):
        written = [write_hashed(folder, prefix, tensors) for prefix, tensors in prefixes.items()]
        files = {entry["file"]: entry["sha256"] for entry in written}
        write_record(folder / INDEX, {"files": files})
        for file in folder.glob("*.safetensors"):
            own = _MASK.fullmatch(file.name) or _START.fullmatch(file.name)
            if own and file.name not in files:
                file.unlink(missing_ok=True)


def load_masks(folder: Path | str) -> dict[tuple[int, int], Masks]:
    """The masks that `LotteryTicket.save_masks` wrote.

    Args:
        folder: As given there.

    Returns:
        (level, seed) -> tensor name -> bool mask.

    Raises:
        FileNotFoundError: It holds no masks.
        ValueError: A file is damaged or was changed, or a tensor in it is no bool mask.
    """
    folder = Path(folder)
    found: dict[tuple[int, int], Masks] = {}
    for match, masks in _read(folder, _MASK):
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                file = folder / match.string
                raise ValueError(f"{file}: tensor {name!r} is {mask.dtype}; a mask is torch.bool")
        found[int(match[1]), int(match[2])] = masks
    return found


def load_starts(folder: Path | str) -> dict[int, dict[str, Tensor]]:
    """What the tickets of each trial start from, as `LotteryTicket.save_masks` wrote it.

    Args:
        folder: As given there.

    Returns:
        Seed -> tensors of the state_dict by name.

    Raises:
        FileNotFoundError: It holds none.
        ValueError: A file is damaged or was changed.
    """
    return {int(m[1]): tensors for m, tensors in _read(Path(folder), _START)}


def _read(folder: Path, kind: re.Pattern[str]) -> list[tuple[re.Match[str], dict[str, Tensor]]]:
    """Names and tensors of the files of a kind, in order of their names."""
    found = settled(folder / INDEX, lambda: _read_now(folder, kind))
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no mask-level-*-seed-*.safetensors; give the folder that "
            "LotteryTicket.save_masks wrote"
        )
    return found


def _read_now(folder: Path, kind: re.Pattern[str]) -> list[tuple[re.Match[str], dict[str, Tensor]]]:
    path = folder / INDEX
    if path.exists():
        files = read_record(path, Index)["files"]
    else:  # of a version that wrote none
        files = {file.name: None for file in folder.glob("*.safetensors")}
    found = []
    for name, digest in sorted(files.items()):
        if (match := kind.fullmatch(name)) is None:
            continue
        if digest is not None and file_hash(folder / name) != digest:
            raise ValueError(f"{folder / name} was changed: its hash is not that of {INDEX}")
        found.append((match, read_tensors(folder / name)))
    return found
