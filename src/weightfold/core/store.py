"""wf.save and wf.load: one pair for every chart; safetensors and a manifest, written atomically."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

import weightfold
from weightfold.core.chart import Chart
from weightfold.core.charted import Charted, check_state
from weightfold.files import replacing, write_json

FORMAT = 1
MANIFEST = "manifest.json"
OWN_NAMES = (MANIFEST, "tensors-")


def save(net: nn.Module, folder: str | Path) -> None:
    """Save a plain or Charted net: its tensors and how its charts are made.

    The tensors' file is named by their hash and the manifest, renamed last, names that file: a
    crash leaves the earlier save whole.

    Args:
        net: The net; tied tensors are stored once.
        folder: Made if missing.

    Raises:
        FileExistsError: The folder holds files, and no earlier save.
    """
    folder = Path(folder)
    foreign = [f for f in folder.glob("*") if not f.name.lstrip(".").startswith(OWN_NAMES)]
    if foreign and not (folder / MANIFEST).exists():
        raise FileExistsError(
            f"folder={str(folder)!r} holds files that are no saved net, e.g. {foreign[0].name!r}; "
            "give a new or empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = net.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    aliases = {n: first[id(t)] for n, t in state.items() if first.setdefault(id(t), n) != n}
    content = serialize(
        {
            n: t.detach().clone(memory_format=torch.contiguous_format)
            for n, t in state.items()
            if n not in aliases
        }
    )
    digest = hashlib.sha256(content).hexdigest()
    name = f"tensors-{digest[:12]}.safetensors"
    with replacing(folder / name) as temporary:
        temporary.write_bytes(content)
    manifest = {
        "format": FORMAT,
        "weightfold": weightfold.__version__,
        "torch": torch.__version__,
        "tensors": {"file": name, "sha256": digest, "aliases": aliases},
        "levels": levels(net),
    }
    write_json(folder / MANIFEST, manifest)
    for stale in folder.glob("tensors-*.safetensors"):
        if stale.name != name:
            stale.unlink()


def levels(net: nn.Module) -> list[list[dict[str, Any]]]:
    """Charts of each level, innermost first: {"kind", "config"} each."""
    found = []
    while isinstance(net, Charted):
        charts: list[Chart] = list(net.charts)  # type: ignore[arg-type]
        found.append([{"kind": chart.kind, "config": chart.config()} for chart in charts])
        net = net.model
    return found[::-1]


def load(folder: str | Path, model: nn.Module) -> nn.Module:
    """Load what `save` wrote, over a model of the same architecture.

    Args:
        folder: A folder written by `save`.
        model: A plain module of the architecture that was charted; left unchanged.

    Returns:
        A Charted net as it was saved (or a copy of the plain model, if that was saved).

    Raises:
        FileNotFoundError: There is no manifest, or its tensors' file is missing or renamed.
        ValueError: The tensors' file is truncated or changed, or of a later format.
        KeyError: The weights are of another architecture; the message lists the keys.
    """
    from weightfold.charts import catalogue

    state, manifest = read(folder)
    kinds = catalogue()
    net: nn.Module = model
    for level in manifest["levels"]:
        if unknown := [c["kind"] for c in level if c["kind"] not in kinds]:
            raise ValueError(f"{folder} needs the chart {unknown[0]!r}; there are {list(kinds)}")
        try:
            net = Charted(net, [kinds[c["kind"]].build(net, **c["config"]) for c in level])
        except (AttributeError, KeyError, RuntimeError, ValueError) as error:
            raise KeyError(
                f"{folder} was saved from another architecture than this "
                f"{type(model).__name__}: {error}"
            ) from error
    if net is model:
        net = copy.deepcopy(model)
    check_state(net.state_dict(), state)
    net.load_state_dict(state, strict=False)
    return net


def read(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and manifest of a saved net, checked against the manifest's hash.

    Raises:
        FileNotFoundError: The manifest or the tensors' file is missing.
        ValueError: A file is damaged, changed, or of a later format.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; folder={str(folder)!r} holds no saved net")
    try:
        manifest = json.loads(path.read_text())
        tensors, version = manifest["tensors"], manifest["format"]
        file = folder / Path(tensors["file"]).name
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); save the net again") from error
    if version > FORMAT:
        raise ValueError(f"{path} has format {version}; this version reads up to {FORMAT}")
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; the manifest beside it names it")
    if _digest(file) != tensors["sha256"]:
        raise ValueError(f"{file} is truncated or was changed: its hash is not the manifest's")
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file: {error}") from error
    return state | {alias: state[name] for alias, name in tensors["aliases"].items()}, manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
