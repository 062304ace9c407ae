"""Networks of finished runs and saved nets, read back from their folders."""

import copy
import json
from pathlib import Path
from typing import Any, Literal

from torch import nn

from weightfold.core.charted import Charted
from weightfold.core.store import MANIFEST, load
from weightfold.data import Dataset
from weightfold.lab.variants import make_net
from weightfold.nets import AsymmetricConv2d, asymmetric_deploy, build
from weightfold.train import checkpoint, load_teacher

WEIGHTS = {"last": checkpoint.LAST_WEIGHTS, "best": checkpoint.BEST_WEIGHTS}


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
    found = json.loads(path.read_text(encoding="utf-8"))["configuration"]
    if missing := [key for key in ("model", "variant", "data") if key not in found["about"]]:
        raise ValueError(
            f"{path} does not say the run's {', '.join(missing)}; only runs of the command line, "
            "comparisons and experiments do"
        )
    if checkpoint.finished(folder) is None:
        raise ValueError(f"folder={str(folder)!r} holds a run that is not finished; go on with it")
    return found


def load_run(
    folder: Path, dataset: Dataset, weights: Literal["last", "best"] = "last"
) -> nn.Module:
    """The network of a finished run as it was trained, in eval mode and without gradients.

    Args:
        folder: Of the run.
        dataset: What it was trained on, or another of the same image shape and classes.
        weights: Of the last or of the best epoch.

    Raises:
        FileNotFoundError: No run, or no weights.
        KeyError: The weights are of another architecture.
        ValueError: As in `configuration`.
    """
    found = configuration(folder)
    net = make_net(
        found["about"]["model"],
        found["about"]["variant"],
        seed=found["seed"],
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
    )
    return load_teacher(net, folder / WEIGHTS[weights])


def load_saved(folder: Path, model: str, dataset: Dataset) -> nn.Module:
    """The net that `wf.save` wrote, in eval mode.

    Args:
        folder: Of the save.
        model: Spec of the plain network.
        dataset: Gives the number of classes and of channels.
    """
    channels = dataset.image_shape[0]
    return load(folder, build(model, num_classes=dataset.num_classes, in_channels=channels)).eval()


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
    return copy.deepcopy(net).eval()
