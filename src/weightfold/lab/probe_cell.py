"""A cell of a probe: one network and data set probed once, named by all that defines it. No torch.

`measure` runs a cell in a folder; `weightfold probe` and the experiments of probes share it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.files import foreign, locked
from weightfold.probes.registry import Probe, probe
from weightfold.records import conform, write_record
from weightfold.spec import parse_spec, read_options
from weightfold.train.checkpoint import sessions_of
from weightfold.train.progress import Tell
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from weightfold.data import Dataset
    from weightfold.probes.finding import Finding
    from weightfold.probes.models import Model


@dataclass(frozen=True)
class ProbeCell:
    """What is probed, how, and from which seeds.

    Attributes:
        probe: Spec of the probe and its options, "intrinsic-dimension,threshold=0.9", as
            `weightfold.probes.registry.Probe.read` reads them.
        seeds: How many: 0, 1, 2, ...
        model: Network spec, as `weightfold.nets.build` takes it; "" if the probe has its own.
        data: Data spec, as `weightfold.data.load` takes it; "" if the probe has its own.
        recipe: Hyperparameters; None: the probe's own.
        variant: How the network is made, see `weightfold.lab.variants`.
        disturb: What is done to the data first, as `weightfold.data.disturb` takes it; "": nothing.
        test_limit: Test examples kept, the first of a random order; None: all.
        weights: Safetensors file of the state_dict that the network starts from, such as a run's
            last.safetensors; "": each seed's initial weights.
    """

    probe: str
    seeds: int
    model: str = ""
    data: str = ""
    recipe: Recipe | None = None
    variant: str = "compact"
    disturb: str = ""
    test_limit: int | None = None
    weights: str = ""

    @property
    def key(self) -> str:
        """Hash of all fields; equal cells have equal results."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]

    @property
    def title(self) -> str:
        """What is being probed, in a few words."""
        name = self.probe.partition(",")[0]
        variant = "" if self.variant == "compact" else self.variant
        return " ".join(filter(None, (name, self.model, variant, self.data, self.disturb)))

    @property
    def before(self) -> None:
        """No cell must be finished first."""
        return None

    @property
    def folder(self) -> str:
        """Name of the probe's folder, readable and unique."""
        parts = filter(None, (*self.title.split(), self.key))
        return "_".join("".join(c if c.isalnum() or c in "-.+" else "-" for c in p) for p in parts)

    def over(self, seeds: int) -> "tuple[ProbeCell, ...]":
        """This cell with so many seeds: one probe of all of them."""
        return (replace(self, seeds=seeds),)

    def finished(self, root: Path) -> "Finding | None":
        """What was found below `root`; None if it has not come to its end."""
        return read_finding(root / self.folder)

    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | Tell = True
    ) -> "Finding":
        """Probe in its folder below `root`, or go on where it stopped; a no-op once finished.

        Args:
            root: Folder of the runs.
            data_root: Data folder; None: $WEIGHTFOLD_DATA.
            progress: True for a progress bar; or a function told how far it is.
        """
        return measure(self, root / self.folder, data_root=data_root, progress=progress)


def read_finding(folder: Path) -> "Finding | None":
    """The finding that was written into a folder; None if it holds none.

    Raises:
        ValueError: result.json is damaged or was changed.
    """
    from weightfold.probes.finding import RESULT, read_record

    record = read_record(folder)
    if record is None:
        return None
    try:
        kind = probe(record.pop("probe"))[0].finding
        own = {f.name: record[f.name] for f in fields(kind) if f.name in record}
        conform(own, kind, str(folder / RESULT))
        return kind.from_record(record)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / RESULT} is damaged: {error!r}") from error


def measure(
    cell: ProbeCell,
    folder: Path,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    progress: bool | Tell = True,
) -> "Finding":
    """Run a probe and write what it finds, or go on where it stopped; reads what is finished.

    Args:
        cell: What to probe.
        folder: Gets the intermediate runs, run.json, result.json, results.csv and the page.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        device: To compute on; "auto": an accelerator if there is one.
        progress: True for a progress bar; or a function told how far it is.

    Raises:
        FileExistsError: The folder holds something else than this probe of this network and data.
        ValueError: The probe, one of its options, the network or the data is wrong.
    """
    from weightfold.probes.models import net_of
    from weightfold.train.record import digest, structure

    chosen, texts = probe(cell.probe)
    arguments = chosen.read(texts) | chosen.over(cell.seeds)
    if cell.recipe is not None:
        arguments["recipe"] = cell.recipe
    for name in ("model", "data"):
        if bool(getattr(cell, name)) != chosen.networks:
            wanted = f"needs a {name}" if chosen.networks else f"has its own {name}; leave it out"
            raise ValueError(f"{name}={getattr(cell, name)!r}: probe {chosen.name!r} {wanted}")
    if chosen.trained and not cell.weights:
        raise ValueError(f"weights='': probe {chosen.name!r} needs those of a trained network")
    about = asdict(cell)
    if chosen.networks:
        samples = samples_of(cell, data_root)
        model = model_of(cell, samples)
        arguments |= {"model": model, "data": samples}
        net = net_of(model, 0)
        # What a name stands for may change: a module of the user's, a file.
        about["contents"] = {
            "structure": structure(net),
            "weights": digest(net),
            "data": samples.digest,
        }
    return measure_in(
        folder,
        chosen,
        arguments,
        about=about,
        title=cell.title,
        device=device,
        progress=progress,
    )


def measure_in(
    folder: Path,
    chosen: Probe,
    arguments: Mapping[str, Any],
    *,
    about: Mapping[str, Any],
    title: str,
    device: str = "auto",
    progress: bool | Tell = True,
) -> "Finding":
    """Run a probe and write what it finds, or go on where it stopped; reads what is finished.

    Args:
        folder: As for `measure`.
        chosen: The probe.
        arguments: Of its function, but for folder, device and progress.
        about: What defines the arguments, as JSON values, to know them again by.
        title: Of the page.
        device: As for `measure`.
        progress: As for `measure`.

    Raises:
        FileExistsError: The folder holds something else, or another process measures in it.
    """
    import torch

    from weightfold.probes.finding import write_finding
    from weightfold.train.checkpoint import RUN
    from weightfold.train.record import check_same, session

    configuration = json.loads(json.dumps({"about": about}))
    check_same(configuration, folder)
    if (found := read_finding(folder)) is not None:
        return found
    if device == "auto":
        device = str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    with locked(folder):
        check_same(configuration, folder)
        if (found := read_finding(folder)) is not None:
            return found  # of another process, just now
        run = folder / RUN
        sessions = (*sessions_of(folder), session(device))
        write_record(run, {"sessions": sessions, "configuration": configuration})
        given = {"device": device, "folder": folder, "progress": progress}
        taken = {name: value for name, value in given.items() if chosen.takes(name)}
        try:
            found = chosen.measure(**arguments, **taken)
        except Exception:
            if foreign(folder) == [run]:  # refused before work began: the folder is free again
                run.unlink()
            raise
        found = replace(found, sessions=sessions)
        write_finding(found, folder, title=title)
        return found


def samples_of(cell: ProbeCell, data_root: Path | None = None) -> "Dataset":
    """The data of a cell, disturbed and limited."""
    from weightfold.data import load
    from weightfold.data.disturb import disturb
    from weightfold.data.pairs import as_dataset

    samples = as_dataset(load(cell.data, data_root)).limited(test=cell.test_limit)
    if not cell.disturb:
        return samples
    condition, texts = parse_spec(cell.disturb)
    options: dict[str, Any] = read_options(condition, texts, {"fraction": float, "seed": int})
    return disturb(samples, condition, **options)


def model_of(cell: ProbeCell, samples: "Dataset") -> "Model":
    """The function that makes a cell's network of a seed; with weights, the network.

    Raises:
        FileNotFoundError: There is no file of weights.
        RuntimeError: The weights are of another network.
    """
    from weightfold.lab.variants import make_net
    from weightfold.train import checkpoint

    channels, height, width = samples.shape

    def of_seed(seed: int) -> "nn.Module":
        return make_net(
            cell.model,
            cell.variant,
            seed=seed,
            num_classes=samples.num_classes,
            image_shape=(channels, height, width),
        )

    if not cell.weights:
        return of_seed
    net = of_seed(0)
    checkpoint.load_weights(net, Path(cell.weights))
    return net
