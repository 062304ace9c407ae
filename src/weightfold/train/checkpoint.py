"""Files of a run's folder: each is written under a temporary name and renamed."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from weightfold.files import replacing, write_csv, write_json
from weightfold.train.history import History

LAST, LAST_WEIGHTS, BEST_WEIGHTS = "last.pt", "last.safetensors", "best.safetensors"
RUN, HISTORY, METRICS = "run.json", "history.json", "metrics.csv"


def write_history(folder: Path, history: History) -> None:
    """Write metrics.csv, one row per epoch, and history.json."""
    write_csv(folder / METRICS, [row.flat() for row in history.rows])
    write_json(folder / HISTORY, history.as_json())


def step_weights(step: int) -> str:
    """Name of the file of weights kept after some optimizer steps."""
    return f"step-{step}.safetensors"


def save_weights(net: nn.Module, path: Path) -> None:
    """Write `net.state_dict()` as safetensors, tied tensors once under each of their names."""
    save_tensors(net.state_dict(), path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, tied ones once under each of their names."""
    state = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(state))


def load_weights(net: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote.

    Raises:
        RuntimeError: The weights are not this network's.
    """
    net.load_state_dict(load_file(path))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain Python values with torch.save."""
    content = io.BytesIO()  # on a full disk torch's writer says "unexpected pos", or aborts
    torch.save(dict(state), content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_state` wrote, with weights_only=True.

    Raises:
        RuntimeError: The file is damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise RuntimeError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); remove its folder to "
            "train again, or restore the file"
        ) from error


def load_history(path: Path) -> History:
    """Read history.json."""
    return History.from_json(json.loads(path.read_text(encoding="utf-8")))


def finished(folder: Path) -> History | None:
    """The history of a run that came to its end; None if it has not yet."""
    path = folder / HISTORY
    history = load_history(path) if path.exists() else None
    return history if history and history.finished else None
