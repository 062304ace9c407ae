"""Networks of finished runs and saved nets, read back from their folders."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from torch import nn

from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.manifest import MANIFEST, read_manifest
from weightfold.core.preprocessing import Preprocessing
from weightfold.data import Dataset
from weightfold.lab.variants import net_for, shape_of
from weightfold.methods import load
from weightfold.nets import AsymmetricConv2d, asymmetric_deploy
from weightfold.nets.recorded import check_recorded, recorded_network
from weightfold.records import conform, within
from weightfold.tasks.registry import as_task, recorded
from weightfold.tasks.task import Task
from weightfold.train import Start, checkpoint
from weightfold.train.starts import begin

WEIGHTS = {"last": checkpoint.LAST_WEIGHTS, "best": checkpoint.BEST_WEIGHTS}


class About(TypedDict):
    """What the command line, comparisons and experiments say of a run."""

    model: NotRequired[str]
    variant: NotRequired[str]
    data: NotRequired[str]


class Named(TypedDict):
    """What is used of a task's record."""

    name: str
    output: NotRequired[str | int]


class Trained(TypedDict):
    """What is used of a run's configuration."""

    about: About
    task: NotRequired[Named]
    seed: Annotated[int, within(0, 2**63)]


def configuration(folder: Path) -> dict[str, Any]:
    """What run.json says of how a run was trained: "about", "recipe", "seed"...

    Raises:
        FileNotFoundError: The folder holds no run.
        ValueError: The run was not made from specs, so that its network cannot be built here, or
            it is not finished.
    """
    path = folder / checkpoint.RUN
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; folder={str(folder)!r} holds no run")
    found = checkpoint.read_run(folder)["configuration"]
    conform(found, Trained, f"{path} is damaged")
    if missing := [key for key in ("model", "variant", "data") if key not in found["about"]]:
        raise ValueError(
            f"{path} does not say the run's {', '.join(missing)}; only runs of the command line, "
            "comparisons and experiments do"
        )
    if checkpoint.finished(folder) is None:
        raise ValueError(f"folder={str(folder)!r} holds a run that is not finished; go on with it")
    return found


def task_of(folder: Path, dataset: Dataset) -> Task:
    """The task of a finished run on such data.

    Raises:
        FileNotFoundError: As `configuration`.
        ValueError: As `configuration`, or the data does not fit the task.
    """
    told = configuration(folder).get("task", {"name": "classify"})
    return recorded(told, dataset, folder / checkpoint.RUN)


def load_run(
    folder: Path,
    data: Task | Dataset,
    weights: Literal["last", "best"] = "last",
    *,
    model: str | None = None,
    option: str = "--model",
) -> nn.Module:
    """The network of a finished run as it was trained, in eval mode and without gradients.

    Args:
        folder: Of the run.
        data: What it was trained on, or another of the same image shape and classes.
        weights: Of the last or of the best epoch.
        model: The network's spec, as the user says, which must be the run's; None: the run's, which
            is no "module:function".
        option: By which a command takes `model`, for errors.

    Raises:
        FileNotFoundError: No run, or no weights.
        KeyError: The weights are of another architecture.
        ValueError: As in `configuration`, or the data is normalised otherwise than the run's was.
    """
    found, path = configuration(folder), folder / WEIGHTS[weights]
    about, where = found["about"], folder / checkpoint.RUN
    spec = recorded_network([about["model"]], model, where, option)

    task = data if isinstance(data, Task) else task_of(folder, data)
    dataset = task.dataset

    def make(variant: str) -> nn.Module:
        return net_for(task, spec, variant, seed=found["seed"])

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; folder={str(folder)!r} holds a run without it")
    if model is None:
        for variant in ("compact", _sized(about["variant"], where)):
            check_recorded(
                partial(make, variant), [spec, variant], stored=path.stat().st_size, where=where
            )
    try:
        net = make(about["variant"])
    except ValueError as error:
        raise ValueError(f"{where} asks for {spec}, {about['variant']}: {error}") from error
    begin(net, Start(folder, at=weights)).eval().requires_grad_(False)
    told = preprocessing_of(folder)
    if told is not None:
        fed = dataset.fed_as(told, f"the network of {folder}")
        if (fed.mean, fed.std) != (dataset.mean, dataset.std):
            raise ValueError(
                f"{where} says that the network is fed with mean {told.unit_mean} and std "
                f"{told.unit_std}, but the data set {dataset.name!r} has {dataset.mean} and "
                f"{dataset.std}; give data with the same"
            )
        told.attach(net)
    return net


def _sized(variant: str, where: Path) -> str:
    try:
        return shape_of(variant)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def load_saved(folder: Path, model: str, data: Task | Dataset) -> nn.Module:
    """The net that `wf.save` wrote, in eval mode.

    Args:
        folder: Of the save.
        model: Spec of the plain network.
        data: The task that the network fits; data alone is to be classified.
    """
    return load(folder, as_task(data).network(model)).eval()


def preprocessing_of(folder: Path) -> Preprocessing | None:
    """How the network of a run, or of a saved net, is fed; None: the folder does not say.

    Raises:
        FileNotFoundError: It holds neither.
        ValueError: The record is damaged or was changed.
    """
    if is_saved_net(folder):
        path, record = folder / MANIFEST, read_manifest(folder)
    else:
        path, record = folder / checkpoint.RUN, checkpoint.read_run(folder)
    try:
        return Preprocessing.of_record(record.get("preprocessing", {}))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: preprocessing: {error}") from error


def is_saved_net(folder: Path) -> bool:
    """Whether `wf.save` wrote the folder."""
    return (folder / MANIFEST).exists()


def deployed(net: nn.Module) -> nn.Module:
    """The plain network that is shipped, in eval mode; a copy.

    Args:
        net: Charted, with asymmetric branches, or plain already.
    """
    if isinstance(net, Charted):
        return net.deploy().eval()
    if any(isinstance(module, AsymmetricConv2d) for module in net.modules()):
        return asymmetric_deploy(net).eval()
    return copied(net).eval()
