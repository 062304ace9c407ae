"""Files of a run's folder: each is written under a temporary name and renamed."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from weightfold.core.checkpoint_file import check_archive, named_as, read_checkpoint
from weightfold.core.tensor_file import write_tensors
from weightfold.files import write_bytes, write_csv
from weightfold.records import file_hash, read_record, write_record
from weightfold.tasks.measure import Measure
from weightfold.train.history import History

LAST, LAST_WEIGHTS, BEST_WEIGHTS = "last.pt", "last.safetensors", "best.safetensors"
RUN, HISTORY, METRICS = "run.json", "history.json", "metrics.csv"


class RunRecord(TypedDict):
    """What run.json holds."""

    configuration: dict[str, Any]
    sessions: NotRequired[list[dict[str, Any]]]
    format: NotRequired[int]
    preprocessing: NotRequired[dict[str, Any]]


class HistoryRecord(TypedDict):
    """What is used of history.json: fields of a `History`, of 0.1's too, and hashes of weights."""

    rows: list[dict[str, float | dict[str, dict[str, float | None]] | None]]
    selection: str
    measures: NotRequired[list[Measure]]
    finished: NotRequired[bool]
    failed: NotRequired[str]
    name: NotRequired[str]
    steps_per_epoch: NotRequired[int | None]
    final_train_error: NotRequired[float | None]
    final_train_errors: NotRequired[dict[str, float]]
    weights: NotRequired[dict[str, str]]


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged or was changed.
    """
    return read_record(folder / RUN, RunRecord)


def sessions_of(folder: Path) -> list[dict[str, Any]]:
    """The sessions in run.json; none if there is no such file.

    Raises:
        ValueError: It is damaged or was changed.
    """
    return read_run(folder).get("sessions", []) if (folder / RUN).exists() else []


def write_history(folder: Path, history: History) -> None:
    """Write metrics.csv, one row per epoch, and history.json; at the end with the weights' hash."""
    write_csv(folder / METRICS, [row.flat() for row in history.rows])
    record = history.as_json()
    if history.finished:
        names = [n for n in (LAST_WEIGHTS, BEST_WEIGHTS) if (folder / n).exists()]
        record["weights"] = {name: file_hash(folder / name) for name in names}
    write_record(folder / HISTORY, record)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a run or of elsewhere; a finished run's are those of its history.json.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It, or history.json, is damaged or was changed.
    """
    history = path.with_name(HISTORY)
    if path.name in (LAST_WEIGHTS, BEST_WEIGHTS) and history.exists():
        told = read_record(history, HistoryRecord).get("weights", {})
        if path.name in told and file_hash(path) != told[path.name]:
            raise ValueError(
                f"{path} is truncated or was changed: its hash is not that in {HISTORY}"
            )
    return read_checkpoint(path)


def step_weights(step: int) -> str:
    """Name of the file of weights kept after some optimizer steps."""
    return f"step-{step}.safetensors"


def save_weights(net: nn.Module, path: Path) -> None:
    """Write `net.state_dict()` as safetensors, tied tensors once under each of their names."""
    write_tensors(path, net.state_dict())


def load_weights(net: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote, or another's checkpoint, see `read_checkpoint`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or was changed.
        RuntimeError: The weights are not this network's.
    """
    state = named_as(read_weights(path), net.state_dict())
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise RuntimeError(f"{path} has the weights of another network: {error}") from error


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain Python values with torch.save."""
    content = io.BytesIO()  # on a full disk torch's writer says "unexpected pos", or aborts
    torch.save(dict(state), content)
    write_bytes(path, content.getbuffer())


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_state` wrote, with weights_only=True, and its checksums, which torch skips.

    Raises:
        RuntimeError: The file is damaged.
    """
    with restoring(path):
        check_archive(path)
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
        return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Inside, what a checkpoint's content raises says which file it is.

    Raises:
        RuntimeError: In place of any exception.
    """
    try:
        yield
    except Exception as error:
        raise RuntimeError(
            f"checkpoint {path} cannot be read ({type(error).__name__}: {error}); remove its "
            "folder to train again, or restore the file"
        ) from error


def load_history(path: Path) -> History:
    """Read history.json, of this version or 0.1.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged or was changed.
    """
    record = read_record(path, HistoryRecord)
    try:
        history = History.from_json(record)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__} {error}") from error
    steps = [row.epoch if row.step is None else row.step for row in history.rows]
    formerly = bool(history.rows) and history.rows[0].step is None
    if not steps or steps != ([*range(1, len(steps) + 1)] if formerly else sorted({*steps})):
        raise ValueError(f"{path} is damaged: its rows are not of rising steps or epochs")
    return history


def damages(folder: Path) -> list[str]:
    """What is damaged of a run's history and checkpoint, each with the name of its file."""
    found = []
    for path, read in (
        (folder / HISTORY, load_history),
        (folder / LAST, lambda path: load_state(path, torch.device("cpu"))),
    ):
        try:
            if path.exists():
                read(path)
        except (RuntimeError, ValueError) as error:
            found.append(str(error))
    return found


def finished(folder: Path) -> History | None:
    """The history of a run that came to its end; None if it has not yet."""
    path = folder / HISTORY
    history = load_history(path) if path.exists() else None
    return history if history and history.finished else None
