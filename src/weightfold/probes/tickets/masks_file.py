"""Tickets on disk: a mask for each level and trial, and what the trial's tickets start from."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from weightfold.files import BRIEFLY, locked, replacing
from weightfold.probes.tickets.prune import Masks

_NAME = re.compile(r"mask-level-(\d+)-seed-(\d+)\.safetensors")


def write_masks(
    folder: Path,
    masks: Mapping[tuple[int, int], Masks],
    starts: Mapping[int, Mapping[str, Tensor]],
) -> None:
    """Write what `LotteryTicket.save_masks` says."""
    with locked(folder, BRIEFLY):
        for (level, seed), tensors in masks.items():
            _write(folder / f"mask-level-{level:02}-seed-{seed}.safetensors", tensors)
        for seed, tensors in starts.items():
            _write(folder / f"start-seed-{seed}.safetensors", tensors)


def load_masks(folder: Path) -> dict[tuple[int, int], Masks]:
    """The masks that `LotteryTicket.save_masks` wrote.

    Args:
        folder: As given there.

    Returns:
        (level, seed) -> tensor name -> bool mask.

    Raises:
        FileNotFoundError: It holds no masks.
        ValueError: A tensor in a file is no bool mask.
    """
    found: dict[tuple[int, int], Masks] = {}
    for path in sorted(folder.glob("mask-*.safetensors")):
        if (match := _NAME.fullmatch(path.name)) is None:
            continue
        masks = load_file(path)
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise ValueError(f"{path}: tensor {name!r} is {mask.dtype}; a mask is torch.bool")
        found[int(match[1]), int(match[2])] = masks
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no mask-level-*-seed-*.safetensors; give the folder that "
            "LotteryTicket.save_masks wrote"
        )
    return found


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    whole = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(whole))
