"""A probe call as a run: one probe of one network and data set. Imports no torch.

`measure` makes a call in a folder; `weightfold probe` and the experiments of papers share it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.files import foreign, locked
from weightfold.lab.run import UNHASHED_DEFAULT, Run
from weightfold.probes.registry import Probe, probe
from weightfold.records import conform, write_record
from weightfold.spec import parse_spec, read_options
from weightfold.train.progress import ProgressCallback
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from weightfold.data import Dataset
    from weightfold.probes.finding import Finding
    from weightfold.probes.models import Model

Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Probing(Run):
    """A call of a probe: of which, on what, with which keyword arguments, and from which seeds.

    Attributes:
        probe: Name among `weightfold.probes.registry.probes`, by which the function is found.
        model: Network spec, as `weightfold.nets.build` takes it; "" if the probe has its own.
        data: Data spec, as `weightfold.data.load` takes it; "" if the probe has its own.
        options: The probe's own keyword arguments, see `calling`.
        recipe: Hyperparameters; None: the probe's own.
        seeds: How many, 0, 1, 2, ...; or which.
        variant: How the network is made, see `weightfold.lab.variants`.
        disturb: What is done to the data first, as `weightfold.data.disturb` takes it; "": nothing.
        test_limit: Test examples kept, the first of a random order; None: all.
        weights: Safetensors file of the state_dict that the network starts from, such as a run's
            last.safetensors; "": each seed's initial weights.
        task: What is learnt, with its options, as `weightfold.tasks.build` takes it.
    """

    probe: str
    model: str = ""
    data: str = ""
    options: Options = ()
    recipe: Recipe | None = None
    seeds: int | tuple[int, ...] = 1
    variant: str = "compact"
    disturb: str = ""
    test_limit: int | None = None
    weights: str = ""
    task: str = field(default="classify", metadata=UNHASHED_DEFAULT)

    @property
    def title(self) -> str:
        """What is being probed, in a few words."""
        return " ".join(filter(None, self.parts))

    @property
    def parts(self) -> tuple[str, ...]:
        """Probe, network, data and what is done to them."""
        variant = "" if self.variant == "compact" else self.variant
        return (self.probe, self.model, variant, self.data, self.disturb)

    def over(self, seeds: Sequence[int]) -> "tuple[Probing, ...]":
        """One call for all of the seeds."""
        first = tuple(seeds) == tuple(range(len(seeds)))
        return (replace(self, seeds=len(seeds) if first else tuple(seeds)),)

    def finished(self, root: Path) -> "Finding | None":
        """What was found below `root`; None if it has not come to its end."""
        return read_finding(root / self.folder)

    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | ProgressCallback = True
    ) -> "Finding":
        """Probe in its folder below `root`, or go on where it stopped; a no-op once finished."""
        return measure(self, root / self.folder, data_root=data_root, progress=progress)

    def to_json(self, record: "Finding") -> Any:
        """The finding with the name of its probe."""
        return {"probe": record.probe, **record.record()}

    def from_json(self, written: Any) -> "Finding":
        """The finding again."""
        return finding_of(written, "results.json")


def calling(name: str, model: str = "", data: str = "", **arguments: Any) -> Probing:
    """A call of a probe with keyword arguments: `Probing`'s fields, and options of the probe's.

    Args:
        name: Of the probe.
        model: As for `Probing`.
        data: As for `Probing`.
        **arguments: `recipe`, `seeds`, ... of `Probing`; all others go to the probe.
    """
    own = {field.name for field in fields(Probing)}
    settings = {key: value for key, value in arguments.items() if key in own}
    options = {key: value for key, value in arguments.items() if key not in own}
    return Probing(name, model, data, options=as_options(options), **settings)


def as_options(options: Mapping[str, Any]) -> Options:
    """Keyword arguments as they stand in a `Probing`: by name, lists as tuples."""
    return tuple(
        (key, tuple(value) if isinstance(value, list) else value)
        for key, value in sorted(options.items())
    )


def finding_of(written: Mapping[str, Any], where: str) -> "Finding":
    """The finding of a record; its class is looked up by the probe's name.

    Args:
        written: The record.
        where: It is from, for errors.

    Raises:
        ValueError: It is damaged or was changed.
    """
    from weightfold.probes.finding import renamed

    record = dict(written)
    try:
        kind = probe(record.pop("probe"))[0].finding
        now = renamed(record, kind.former)
        own = {f.name: now[f.name] for f in fields(kind) if f.name in now}
        conform(own, kind, where)
        return kind.from_record(record)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where} is damaged: {error!r}") from error


def read_finding(folder: Path) -> "Finding | None":
    """The finding that was written into a folder; None if it holds none.

    Raises:
        ValueError: result.json is damaged or was changed.
    """
    from weightfold.probes.finding import RESULT, read_record

    record = read_record(folder)
    return None if record is None else finding_of(record, str(folder / RESULT))


def measure(
    call: Probing,
    folder: Path,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    progress: bool | ProgressCallback = True,
) -> "Finding":
    """Run a probe and write what it finds, or go on where it stopped; reads what is finished.

    Args:
        call: What to probe.
        folder: Gets the intermediate runs, run.json, result.json, results.csv and the page.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        device: To compute on; "auto": an accelerator if there is one.
        progress: True for a progress bar; or a function told how far it is.

    Raises:
        FileExistsError: The folder holds something else than this probe of this network and data.
        ValueError: The probe, one of its options, the network or the data is wrong.
    """
    from weightfold.probes.models import net_of
    from weightfold.tasks.registry import build
    from weightfold.train.record import digest, structure

    chosen = checked(call)
    seeds = call.seeds
    arguments = dict(call.options)
    arguments |= chosen.over(seeds) if isinstance(seeds, int) else {"seeds": seeds}
    if call.recipe is not None:
        arguments["recipe"] = call.recipe
    about = call.settings
    if chosen.networks:
        samples = samples_of(call, data_root)
        model = model_of(call, samples)
        # Data alone is to be classified, and a probe may know no tasks.
        data = samples if call.task == "classify" else build(call.task, samples)
        arguments |= {"net": model, "data": data}
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
        title=call.title,
        device=device,
        progress=progress,
    )


def checked(call: Probing) -> Probe:
    """The probe of a call.

    Raises:
        ValueError: There is none, it has not such an option, or a network, data or weights are
            missing or too many.
    """
    chosen, _ = probe(call.probe)
    for name in dict(call.options):
        if name not in chosen.options:
            near = get_close_matches(name, chosen.options, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"{chosen.name!r} has no option {name!r}; {hint}its options: "
                f"{', '.join(chosen.options)}"
            )
    for name in ("model", "data"):
        if bool(getattr(call, name)) != chosen.networks:
            wanted = f"needs a {name}" if chosen.networks else f"has its own {name}; leave it out"
            raise ValueError(f"{name}={getattr(call, name)!r}: probe {chosen.name!r} {wanted}")
    if chosen.trained and not call.weights:
        raise ValueError(f"weights='': probe {chosen.name!r} needs those of a trained network")
    return chosen


def measure_in(
    folder: Path,
    chosen: Probe,
    arguments: Mapping[str, Any],
    *,
    about: Mapping[str, Any],
    title: str,
    device: str = "auto",
    progress: bool | ProgressCallback = True,
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
    from weightfold.train.checkpoint import RUN, sessions_of
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


def samples_of(call: Probing, data_root: Path | None = None) -> "Dataset":
    """The data of a call, disturbed and limited."""
    from weightfold.data import load
    from weightfold.data.disturb import disturb
    from weightfold.data.pairs import as_dataset

    samples = as_dataset(load(call.data, data_root)).limited(test=call.test_limit)
    if not call.disturb:
        return samples
    condition, texts = parse_spec(call.disturb)
    options: dict[str, Any] = read_options(condition, texts, {"fraction": float, "seed": int})
    return disturb(samples, condition, **options)


def model_of(call: Probing, samples: "Dataset") -> "Model":
    """The function that makes a call's network of a seed; with weights, the network.

    Raises:
        FileNotFoundError: There is no file of weights.
        RuntimeError: The weights are of another network.
    """
    from weightfold.lab.variants import net_for
    from weightfold.tasks.registry import build
    from weightfold.train import checkpoint

    task = build(call.task, samples)

    def of_seed(seed: int) -> "nn.Module":
        return net_for(task, call.model, call.variant, seed=seed)

    if not call.weights:
        return of_seed
    net = of_seed(0)
    checkpoint.load_weights(net, Path(call.weights))
    return net
