"""run.json: what defines a run, and where it ran."""

import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weightfold.core.charted import Charted
from weightfold.core.preprocessing import Preprocessing
from weightfold.core.tensor_file import tensors_hash
from weightfold.records import write_record
from weightfold.train import checkpoint
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe

FORMAT = 2
"""Of run.json and last.pt; that of version 0.1 was 1, and not written."""


def describe(
    net: nn.Module, recipe: Recipe, *, seed: int, options: Options, **more: Any
) -> dict[str, Any]:
    """What defines a run, as JSON values: two runs that agree in it belong in one folder.

    It is all that decides the result: the network's structure, values and what of it is trained,
    charts' constants among the values; data, recipe and seed.

    Args:
        net: With its initial weights.
        recipe: As for `fit`, like all that follow.
        seed: Of the run.
        options: Of the run.
        **more: What else a kind of run is defined by: its task, its domains, ...
    """
    configuration = {
        "about": dict(options.about),
        "recipe": asdict(recipe),
        "seed": seed,
        "validation": options.validation,
        "precision": options.precision,
        **more,
        "steps": options.steps,
        "every": options.every,
        "measure": options.measure,
        "at start": options.at_start,
        "start": None if options.start is None else options.start.identity(),
        "network": _network(net),
    }
    # What most runs have not, so that theirs are known again.
    if options.lr_factors:
        configuration["lr factors"] = dict(options.lr_factors)
    if options.in_place:
        configuration["in place"] = True
    return json.loads(json.dumps(configuration, default=str))


def _network(net: nn.Module) -> dict[str, Any]:
    """What tells a network from another, as JSON values."""
    return {
        "tensors": {n: f"{t.dtype} {list(t.shape)}" for n, t in net.state_dict().items()},
        "structure": structure(net),
        "trained": sorted(name for name, p in net.named_parameters() if p.requires_grad),
        "weights": digest(net),
    }


def digest(net: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of a state_dict."""
    return tensors_hash(net.state_dict())


def structure(net: nn.Module) -> str:
    """SHA-256 over a network's modules, as they are printed, and the names of what it trains.

    It tells activations, strides and dropout rates apart, which no tensor shows; not what a forward
    does besides.
    """
    printed = re.sub(r" at 0x[0-9a-f]+", "", str(net))
    trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    return hashlib.sha256("\n".join([printed, *trained]).encode()).hexdigest()[:16]


def check_run(configuration: Mapping[str, Any], folder: Path) -> bool:
    """Whether the folder already holds this run, as `check_same`.

    Raises:
        FileExistsError: As there; or it holds a run of another version.
        ValueError: As there.
    """
    if not (folder / checkpoint.RUN).exists():
        return False
    record = checkpoint.read_run(folder)
    if record.get("format") != FORMAT:
        sessions = record.get("sessions") or [{}]
        wrote = sessions[-1].get("weightfold", "an unknown version")
        raise FileExistsError(
            f"folder={str(folder)!r} holds a run of weightfold {wrote} (format "
            f"{record.get('format', 1)} of run.json; this is {version('weightfold')}, format "
            f"{FORMAT}); its weights can be read, but not gone on with. Choose another folder"
        )
    return check_same(configuration, folder)


def check_same(configuration: Mapping[str, Any], folder: Path) -> bool:
    """Whether the folder's run.json has this configuration.

    Returns:
        True if it does, False if there is none.

    Raises:
        FileExistsError: It has another one; the message names the fields that differ.
        ValueError: run.json is damaged or was changed.
    """
    path = folder / checkpoint.RUN
    if not path.exists():
        return False
    there = dict(_flat(checkpoint.read_run(folder)["configuration"]))
    here = dict(_flat(configuration))
    names = [name for name in {**there, **here} if there.get(name, ...) != here.get(name, ...)]
    if names:
        shown = "; ".join(f"{n}: {_show(there, n)} there, {_show(here, n)} now" for n in names[:8])
        more = f"; and {len(names) - 8} more" if len(names) > 8 else ""
        damage = "".join(f". Besides, {error}" for error in checkpoint.damages(folder))
        raise FileExistsError(
            f"folder={str(folder)!r} holds another run; they differ in {shown}{more}. "
            f"Choose another folder, or remove this one{damage}"
        )
    return True


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _show(flat: Mapping[str, Any], name: str) -> str:
    return repr(flat[name]) if name in flat else "absent"


def write_run(
    folder: Path,
    configuration: Mapping[str, Any],
    net: nn.Module | None,
    device: torch.device | str,
    **more: Any,
) -> None:
    """Write run.json, or add to the one there the session that begins now.

    Args:
        folder: Exists.
        configuration: From `describe`.
        net: Whose parameters are counted, as it is and deployed, and whose preprocessing is
            noted; None: neither.
        device: It trains on.
        **more: Further fields of the session.
    """
    record: dict[str, Any] = {"format": FORMAT}
    if net is not None:
        deployed = net.deploy(net.default_context()) if isinstance(net, Charted) else net
        record["parameters"] = {"training": _count(net), "deployed": _count(deployed)}
        if (told := Preprocessing.of(net)) is not None:
            record["preprocessing"] = told.record()
    record["sessions"] = [*checkpoint.sessions_of(folder), {**session(device), **more}]
    write_record(folder / checkpoint.RUN, {**record, "configuration": configuration})


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def session(device: torch.device | str = "cpu") -> dict[str, Any]:
    """When, with which versions and on which machine the caller runs.

    Args:
        device: The device it computes on.
    """
    device = torch.device(device)
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "weightfold": version("weightfold"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _commit() -> str | None:
    """The commit of the working directory's checkout, "-dirty" with changes; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
