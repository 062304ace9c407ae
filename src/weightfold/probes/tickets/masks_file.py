"""Tickets on disk: a mask for each level and trial, and what the trial's tickets start from."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from weightfold.core.tensor_file import read_tensors, write_tensors
from weightfold.probes.tickets.prune import Masks

_NAME = re.compile(r"mask-level-(\d+)-seed-(\d+)\.safetensors")


def write_masks(
    folder: Path,
    masks: Mapping[tuple[int, int], Masks],
    starts: Mapping[int, Mapping[str, Tensor]],
) -> None:
    """Write what `LotteryTicket.save_masks` says."""
    folder.mkdir(parents=True, exist_ok=True)
    for (level, seed), tensors in masks.items():
        write_tensors(folder / f"mask-level-{level:02}-seed-{seed}.safetensors", tensors)
    for seed, tensors in starts.items():
        write_tensors(folder / f"start-seed-{seed}.safetensors", tensors)


def load_masks(folder: Path) -> dict[tuple[int, int], Masks]:
    """The masks that `LotteryTicket.save_masks` wrote.

    Args:
        folder: As given there.

    Returns:
        (level, seed) -> tensor name -> bool mask.

    Raises:
        FileNotFoundError: It holds no masks.
        ValueError: A file is damaged or was changed, or a tensor in it is no bool mask.
    """
    found: dict[tuple[int, int], Masks] = {}
    for path in sorted(folder.glob("mask-*.safetensors")):
        if (match := _NAME.fullmatch(path.name)) is None:
            continue
        masks = read_tensors(path)
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
