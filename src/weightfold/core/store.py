"""`save` and `load`: one pair for every chart; safetensors and a manifest, written atomically.

A chart may say (`FilePerPart`) which file each coordinate lies in: what one part alone uses lies in
that part's file, everything else in the shared one. Files are named by their hash.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from weightfold.core.arguments import as_path, check_values, unwrapped
from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.core.manifest import FORMAT, MANIFEST, read_manifest
from weightfold.core.mixins import FilePerPart
from weightfold.core.part_file import PART, check_file, file_of, write_hashed, write_part
from weightfold.core.preprocessing import Preprocessing
from weightfold.core.rebuild import rebuild
from weightfold.files import BRIEFLY, foreign, locked, settled
from weightfold.records import write_record
from weightfold.version import __version__

WHOLE, SHARED = "tensors-", "shared-"
OWN_NAMES = (MANIFEST, WHOLE, SHARED, PART)
OWN_FILE = re.compile(rf"({WHOLE}|{SHARED}|{PART}.+-)[0-9a-f]{{12}}\.safetensors")


def save(net: nn.Module, folder: str | Path, *, preprocessing: Preprocessing | None = None) -> None:
    """Save a plain or Charted net: its tensors and how its charts are made.

    >>> import tempfile, torch, weightfold as wf
    >>> model = torch.nn.Linear(3, 2)
    >>> folder = tempfile.mkdtemp()
    >>> wf.save(wf.subspace(model, dim=4), folder)
    >>> wf.load(folder, model).summary()
    parameters: 4 while training (4 trainable), 8 deployed
    subspace: 4 coordinates

    A net of several parts (domains) becomes one shared file and one small file a part; each names
    the shared file it belongs to. A file is named by its hash, is not written again while its
    content stays, and the manifest, renamed last, names all: a crash leaves the earlier save whole.

    Args:
        net: The net, or torch.compile's, DataParallel's or DistributedDataParallel's wrapper of
            it; tied tensors are stored once.
        folder: Made if missing.
        preprocessing: How the net is fed, which goes with it from now on; None: as it says itself,
            after `fit` for instance. Domains have one each, in `net.about[domain]`.

    Raises:
        FileExistsError: The folder holds files, and no earlier save; or another process writes
            into it for more than ten seconds.
        OSError: The disk is full or read-only, ...; the message names the file.
        TypeError: `net` is no module or holds a Charted net inside; `preprocessing` is no
            `Preprocessing`; or a module's extra state, or a chart's configuration (what is told
            about a domain), is not of JSON values.
        ValueError: A tensor has no values, a part's name does not do for a file, or `preprocessing`
            of a net of domains.
    """
    net = unwrapped(net)
    check_values(net)
    told = Preprocessing.of(net) if preprocessing is None else preprocessing
    if told is not None and not isinstance(told, Preprocessing):
        raise TypeError(f"preprocessing={told!r:.60}; give a weightfold.Preprocessing")
    folder = as_path(folder, "folder")
    others = [file for file in foreign(folder) if not file.name.startswith(OWN_NAMES)]
    if others and not (folder / MANIFEST).exists():
        raise FileExistsError(
            f"folder={str(folder)!r} holds files that are no saved net, e.g. {others[0].name!r}; "
            "give a new or empty folder"
        )
    tensors, groups, aliases = contents(net)
    if groups and preprocessing is not None:
        raise ValueError(
            "preprocessing is one for all, but each domain has its own: set net.about[domain] to "
            "what its record() gives"
        )
    extra = {n: v for n, v in net.state_dict().items() if not isinstance(v, Tensor)}
    for name, value in extra.items():
        try:
            same = repr(json.loads(json.dumps(value, allow_nan=False))) == repr(value)
        except (TypeError, ValueError):
            same = False
        if not same:
            raise TypeError(
                f"{name!r}={value!r:.60} would not be read as it is; let get_extra_state() give a "
                "tensor, or dicts with texts as keys, lists, texts, finite numbers and None"
            )
    try:
        json.dumps(charts := levels(net))
    except TypeError as error:
        raise TypeError(f"a chart's configuration is not of JSON values: {error}") from error
    with locked(folder, BRIEFLY):
        shared = write_hashed(folder, SHARED if groups else WHOLE, tensors)
        parts = {p: write_part(folder, p, own, shared["sha256"]) for p, own in groups.items()}
        entry = {**shared, "aliases": aliases, "extra": extra}
        write_manifest(folder, entry, parts, charts, told)
    if told is not None:
        told.attach(net)


def contents(
    net: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, str]]:
    """What `save` writes.

    Returns:
        State name -> tensor, of the shared ones; the same for each part; and, for tied tensors,
        each further name -> the first.

    Raises:
        ValueError: A part's name does not do for a file.
    """
    shared: dict[str, Tensor] = {}
    groups: dict[str, dict[str, Tensor]] = {}
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in net.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):  # extra state of a module
            continue
        if (kept := first.setdefault(id(tensor), name)) != name:
            aliases[name] = kept
        elif (part := part_of(net, name)) is None:
            shared[name] = tensor
        else:
            groups.setdefault(part, {})[name] = tensor
    if bad := [part for part in groups if not re.fullmatch(r"[A-Za-z0-9_-]+", part)]:
        raise ValueError(f"part {bad[0]!r} names a file; use letters, digits, '_' and '-'")
    return shared, groups, aliases


def part_of(net: nn.Module, name: str) -> str | None:
    """Part that tensor `name` of `net` is stored in; None: the shared one.

    A coordinate that its chart leaves in the shared file goes with what its level computes, where
    all of that lies in one part: a subspace of one domain's filters is stored with the domain.
    """
    if not isinstance(net, Charted):
        return None
    if name.startswith("model."):
        return part_of(net.model, name.removeprefix("model."))
    _, index, coordinate = name.split(".", 2)
    chart = net.charts[int(index)]
    if isinstance(chart, FilePerPart) and (part := chart.stored_in(coordinate)) is not None:
        return part
    computed = {part_of(net.model, place) for place in net._places}
    return computed.pop() if len(computed) == 1 else None


def write_manifest(
    folder: Path,
    tensors: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, str]],
    levels: list[list[dict[str, Any]]],
    preprocessing: Preprocessing | None = None,
) -> None:
    """Put a save in force: rename the manifest, then remove the files that it does not name.

    Args:
        folder: Of the save, locked.
        tensors: The shared file: "file", "sha256", "aliases"; "extra" state that is no tensor.
        parts: Part -> "file", "sha256".
        levels: As `levels` gives them.
        preprocessing: How the net is fed, if it says so.
    """
    manifest = {
        "format": FORMAT,
        "weightfold": __version__,
        "torch": torch.__version__,
        "tensors": tensors,
        "parts": parts,
        "levels": levels,
    }
    if preprocessing is not None:
        manifest["preprocessing"] = preprocessing.record()
    write_record(folder / MANIFEST, manifest)
    named = {tensors["file"], *(part["file"] for part in parts.values())}
    for file in folder.iterdir():
        if OWN_FILE.fullmatch(file.name) and file.name not in named:
            file.unlink(missing_ok=True)


def levels(net: nn.Module) -> list[list[dict[str, Any]]]:
    """Charts of each level, innermost first: {"kind", "config"} each."""
    found = []
    while isinstance(net, Charted):
        charts: list[Chart] = list(net.charts)  # type: ignore[arg-type]
        found.append([{"kind": chart.kind, "config": chart.config()} for chart in charts])
        net = net.model
    return found[::-1]


def load(folder: str | Path, model: nn.Module) -> nn.Module:
    """Load what `save` wrote, over a model of the same architecture; as `wf.load`.

    Knows the charts that have been imported; `weightfold.methods.load` imports all of ours.

    A folder that another process is saving into gives the earlier net or the later one, whole.

    Args:
        folder: A folder written by `save`.
        model: A plain module of the architecture that was charted; left unchanged.

    Returns:
        A Charted net as it was saved (or a copy of the plain model, if that was saved), in the
        dtypes it was saved in.

    Raises:
        FileNotFoundError: There is no manifest, or a file it names is missing or renamed.
        ValueError: A file is truncated, changed, of a later format, or belongs to another save.
        KeyError: The weights are of another architecture; the message lists the keys.
    """

    def read() -> tuple[dict[str, Any], dict[str, Tensor]]:
        manifest = read_manifest(folder)
        return manifest, read_state(folder, manifest)

    check_values(model, "net", meta=True)  # a chart may compute them
    manifest, state = settled(as_path(folder, "folder") / MANIFEST, read)
    net = rebuild(folder, model, manifest["levels"], state)
    try:
        told = Preprocessing.of_record(manifest.get("preprocessing", {}))
    except ValueError as error:
        raise ValueError(f"{Path(folder) / MANIFEST} is damaged: preprocessing: {error}") from error
    if told is not None:
        told.attach(net)
    return net


def read_state(
    folder: str | Path, manifest: Mapping[str, Any], parts: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Tensors of a saved net by their names in its state_dict, checked and memory-mapped.

    Args:
        folder: Of the save.
        manifest: Of the folder.
        parts: Those wanted beside the shared file; None: all.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, changed, or belongs to another save.
    """
    folder = Path(folder)
    state: dict[str, Tensor] = {}
    for part in (None, *(manifest["parts"] if parts is None else parts)):
        check_file(folder, manifest, part)
        state |= load_file(file_of(folder, manifest, part))
    aliases = manifest["tensors"]["aliases"].items()
    state |= {alias: state[name] for alias, name in aliases if name in state}
    return state | manifest["tensors"].get("extra", {})
