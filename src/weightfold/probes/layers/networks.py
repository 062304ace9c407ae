"""Trained networks with the weights they had at earlier epochs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from weightfold.core.copying import copied
from weightfold.data.pairs import Data
from weightfold.probes.layers.splice import Checkpoint, read_checkpoint
from weightfold.probes.models import Model, net_of
from weightfold.records import write_record
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.callbacks import KeepWeights
from weightfold.train.checkpoint import RUN
from weightfold.train.history import History, Row
from weightfold.train.loop import REMEDY, NonFiniteLoss
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same
from weightfold.train.starts import Start, begin
from weightfold.train.together import SIDE_BY_SIDE, Run, fit_together


@dataclass(frozen=True)
class Network:
    """A trained network and its past.

    Attributes:
        seed: Its seed; the index among networks whose checkpoints were given.
        net: With the trained weights.
        past: Epoch -> tensors, from 0 to the last, which are those of `net`.
        history: Of its training; None if its checkpoints were given.
    """

    seed: int
    net: nn.Module
    past: Mapping[int, Mapping[str, Tensor]]
    history: History | None = None


def saved_epochs(reset_to: Sequence[int] | None, last: int) -> tuple[int, ...]:
    """Epochs at which weights are kept: 0, those of `reset_to`, and the last.

    Args:
        reset_to: None: 1, 2, 4, 8 and so on.
        last: Epochs of training.

    Raises:
        ValueError: One of them is outside 0..last.
    """
    if reset_to is None:
        middle = [2**k for k in range(last.bit_length()) if 2**k < last]
    else:
        middle = list(reset_to)
    if bad := [epoch for epoch in middle if not 0 <= epoch <= last]:
        raise ValueError(f"reset_to has epoch {bad[0]}; the recipe trains epochs 0 to {last}")
    return tuple(sorted({0, *middle, last}))


def trained_networks(
    net: Model,
    data: Task | Data,
    recipe: Recipe,
    seeds: Sequence[int],
    epochs: tuple[int, ...],
    *,
    folder: Path | None,
    device: torch.device | str,
    hear: Callable[[int], None],
    unit: int | None = None,
) -> tuple[list[Network], tuple[str, ...]]:
    """Train a network for each seed and keep its weights on the way.

    Args:
        net: A module, the start of all, or a function of the seed.
        data: To train on.
        recipe: Hyperparameters.
        seeds: Of the networks, all different.
        epochs: When to keep the weights.
        folder: Where training can go on from; None: nowhere.
        device: To train on.
        hear: Called with the epochs trained so far, of all networks together.
        unit: Steps in what `epochs` counts; None: in an epoch.

    Returns:
        The networks; and what became of those that are left out.

    Raises:
        FileExistsError: The folder holds other runs, or runs whose weights were kept at other
            epochs.
        NonFiniteLoss: Every network's loss became NaN or infinite.
    """
    if folder is not None:
        kept = {"weights kept at epochs": list(epochs)}
        if not check_same(kept, folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_record(folder / RUN, {"configuration": kept})
    keepers: list[KeepWeights] = []
    unit = unit or len(as_task(data).batches("train", batch_size=recipe.batch_size))
    progress: dict[str, int] = {}

    def keep() -> KeepWeights:
        keepers.append(KeepWeights(epochs, unit))
        return keepers[-1]

    def shown(name: str, row: Row) -> None:
        progress[name] = row.epoch
        hear(sum(progress.values()))

    starts = {f"seed{seed}": Run(net_of(net, seed), data, seed) for seed in seeds}
    options = replace(SIDE_BY_SIDE, callbacks=(keep,))
    runs = fit_together(
        starts, recipe, folder=folder, device=device, progress=shown, options=options
    )
    pasts = {name: past for kept in keepers for name, past in kept.state.items()}
    networks = [
        Network(seed, starts[name].net, pasts[name], runs[name])
        for seed, name in zip(seeds, starts, strict=True)
        if not runs[name].failed
    ]
    failed = tuple(f"Left out: {name}, {run.failed}." for name, run in runs.items() if run.failed)
    if not networks:
        raise NonFiniteLoss(f"no network could be trained; {failed[0]} {REMEDY}")
    return networks, failed


Checkpoints = Mapping[int, Checkpoint]
"""Epoch -> checkpoint: 0 is the initial one, the last the trained one."""


def given_networks(
    net: nn.Module, checkpoints: Checkpoints | Sequence[Checkpoints], device: torch.device | str
) -> list[Network]:
    """The networks that checkpoints are of.

    Args:
        net: Of the same class; left unchanged.
        checkpoints: Of one network, or of several with the same epochs.
        device: For the networks.

    Raises:
        TypeError: They are no mappings of epochs, or no checkpoints.
        ValueError: Epoch 0 or a later one is missing, networks differ in their epochs, or a
            checkpoint is of another network.
        FileNotFoundError: A file is missing.
    """
    several = [checkpoints] if isinstance(checkpoints, Mapping) else list(checkpoints)
    for one in several:
        if not isinstance(one, Mapping) or not all(isinstance(epoch, int) for epoch in one):
            raise TypeError(
                "checkpoints must map epochs (int) to state_dicts or safetensors paths, or be a "
                "list of such mappings, one for each network"
            )
        if min(one, default=-1) != 0 or len(one) < 2:
            raise ValueError(
                f"checkpoints has the epochs {sorted(one)}; give at least the initial weights, as "
                "epoch 0, and the trained ones, as the last"
            )
        if one.keys() != several[0].keys():
            raise ValueError(
                f"checkpoints of network {several.index(one)} have the epochs {sorted(one)}, those "
                f"of the first {sorted(several[0])}; give the same ones"
            )
    if not several:
        raise ValueError("checkpoints is empty; give a mapping of epochs for each network")
    networks = []
    for index, one in enumerate(several):
        past = {
            epoch: read_checkpoint(one[epoch], net, f"checkpoints[{epoch}]")
            for epoch in sorted(one)
        }
        trained = begin(copied(net).to(device), Start(past[max(past)]))
        networks.append(Network(index, trained, past))
    return networks
