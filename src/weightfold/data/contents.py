"""Contents of tensors, and of nested sequences and dicts of tensors: moved to a device, hashed."""

import hashlib
from typing import Any

import torch
from torch import Tensor


def moved(targets: Any, device: torch.device | str) -> Any:
    """Tensors, or nested sequences and dicts of tensors, on `device`."""
    if isinstance(targets, Tensor):
        return targets.to(device)
    if isinstance(targets, dict):
        return {name: moved(inner, device) for name, inner in targets.items()}
    if isinstance(targets, list | tuple):
        return [moved(inner, device) for inner in targets]
    return targets


def feed(sha: Any, value: Any) -> None:
    """Feed tensors, nested sequences and dicts of them, or plain values to a hash."""
    if isinstance(value, Tensor):
        sha.update(f"{value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        for name, inner in value.items():
            sha.update(f"{name}:".encode())
            feed(sha, inner)
    elif isinstance(value, list | tuple):
        sha.update(f"[{len(value)}]".encode())
        for inner in value:
            feed(sha, inner)
    else:
        sha.update(repr(value).encode())


def digest_of(value: Any) -> str:
    """SHA-256 over what `feed` takes, in 16 hex digits."""
    sha = hashlib.sha256()
    feed(sha, value)
    return sha.hexdigest()[:16]
