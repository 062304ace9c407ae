"""wf.layer_reset: each layer set back to earlier epochs or drawn anew, and the network tested."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from weightfold.data.pairs import Data, as_dataset
from weightfold.probes.layers.batch_norm import Policy, check_policy, running_statistics
from weightfold.probes.layers.cells import CALIBRATION, Bench, measure_cells, redrawable
from weightfold.probes.layers.finding import LayerReset
from weightfold.probes.layers.measurements import Cell, Distance
from weightfold.probes.layers.networks import (
    Checkpoints,
    Network,
    given_networks,
    saved_epochs,
    trained_networks,
)
from weightfold.probes.layers.units import Unit, check_plain, kept_tensors, layer_units
from weightfold.probes.models import Model, check_network, net_of
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session

RECIPE = Recipe(epochs=32, lr=0.05, crop_padding=0, flip=False)
"""Ours: the survey says only "until convergence", with weights kept up to epoch 100."""


@register_probe(
    "layer-reset",
    "which layers matter: each set back to an earlier epoch, or drawn anew",
    finds=LayerReset,
)
def layer_reset(
    model: Model,
    data: Data,
    *,
    bn: Policy,
    checkpoints: Checkpoints | Sequence[Checkpoints] | None = None,
    reset_to: Sequence[int] | None = None,
    draws: int = 3,
    recipe: Recipe = RECIPE,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | str | None = None,
    device: torch.device | str = "cpu",
    progress: bool | ProgressCallback = True,
) -> LayerReset:
    """Which layers matter: each set back to earlier epochs, or drawn anew, the others trained.

    Zhang, Bengio and Singer 2022, "Are All Layers Created Equal?". A layer is set back together
    with the normalisations that read its output directly, see `layer_units`, and the network is
    tested without further training.

    Args:
        model: A module, or a function that makes the network of a seed; left unchanged. All seeds
            of a module start from its weights.
        data: The test set is what networks are tested on.
        bn: What becomes of batch norm's running statistics, see `splice`; it decides the outcome.
            "recalibrate" uses at most `CALIBRATION` training examples, for trained networks too.
        checkpoints: Epoch -> state_dict or safetensors path, of one network or a list of several;
            epoch 0 is the initial network, the last the trained one. None: networks are trained.
        reset_to: Epochs to go back to, beside 0; None: 1, 2, 4, 8 and so on. Not with
            `checkpoints`, which have their own.
        draws: Times that each layer is drawn anew, for the mean: by `model` if that is a function,
            else by each layer's `reset_parameters()`.
        recipe: How to train; not used with `checkpoints`.
        seeds: Of the networks to train; not used with `checkpoints`.
        folder: Where a call that was stopped goes on from. Calls with other `bn` may share it, and
            with it the trained networks. None: nothing is written.
        device: To train and test on.
        progress: As for `progress_bar`.

    Raises:
        TypeError: `model` or `data` is of no such kind, or the model is charted.
        ValueError: An argument is out of range, or a checkpoint is of another network.
        FileNotFoundError: A checkpoint's file is missing.
        FileExistsError: The folder holds something else.
        NonFiniteLoss: No network could be trained.
    """
    check_policy(bn)
    if draws < 1:
        raise ValueError(f"draws={draws}: give at least 1")
    if checkpoints is None and (not seeds or len(set(seeds)) < len(seeds)):
        raise ValueError(f"seeds={tuple(seeds)}: give at least one, each once")
    if checkpoints is not None and reset_to is not None:
        raise ValueError("reset_to is for training; with checkpoints it is their epochs")
    samples = as_dataset(data)
    net = net_of(model, seeds[0] if checkpoints is None else 0)
    check_plain(net, "model")
    check_network(net, samples, device)
    units = layer_units(net, samples.normalize(samples.train.inputs[:1]))
    bench = Bench(units, bn, samples.to(device), draws, model)
    networks, failed = [], ()
    if checkpoints is not None:
        networks = given_networks(net, checkpoints, device)
        epochs, training = tuple(networks[0].past), 0
    else:
        epochs = saved_epochs(reset_to, recipe.epochs)
        training = len(seeds) * recipe.epochs
    total = training + len(networks or seeds) * bench.cells_in(len(epochs))
    with progress_bar(progress, LayerReset.probe) as show:
        if checkpoints is None:
            networks, failed = trained_networks(
                model,
                samples,
                recipe,
                seeds,
                epochs,
                folder=None if folder is None else Path(folder) / "runs",
                device=device,
                hear=lambda done: show(Progress(done, total, "training")),
            )
        cells: list[Cell] = []
        for network in networks:
            before = training + len(cells)
            cells += measure_cells(
                network,
                bench,
                None if folder is None else Path(folder) / f"tests-{bn}" / f"seed{network.seed}",
                lambda done, text, at=before: show(Progress(at + done, total, text)),
            )
    return LayerReset(
        network=f"{type(net).__name__} ({sum(unit.parameters for unit in units):,} weights)",
        data=samples.name,
        bn=bn,
        batch_norms=len(running_statistics(net)),
        epochs=epochs,
        seeds=tuple(network.seed for network in networks),
        units=units,
        cells=tuple(cells),
        distances=tuple(_distance(unit, network) for network in networks for unit in units),
        chance=1 - as_task(samples).baseline(),
        recipe=asdict(recipe) if checkpoints is None else None,
        notes=(*_notes(net, bench, trained=checkpoints is None), *failed),
        sessions=(session(device),),
    )


def _distance(unit: Unit, network: Network) -> Distance:
    first, last = network.past[0], kept_tensors(network.net)
    names = [n for n in unit.tensors if isinstance(last[n], nn.Parameter)]
    moved = torch.cat(
        [(last[n].detach().cpu().double() - first[n].cpu().double()).flatten() for n in names]
    )
    rms = moved.square().mean().sqrt().item()
    return Distance(unit.name, network.seed, rms, moved.abs().max().item())


def _notes(net: nn.Module, bench: Bench, *, trained: bool) -> list[str]:
    notes = []
    if any(len(unit.modules) > 1 for unit in bench.units):
        notes.append(
            "A layer is set back together with the normalisations that read its output directly, "
            "scale and shift included: our choice."
        )
    if running_statistics(net) and bench.bn == "recalibrate":
        count = min(CALIBRATION, len(bench.samples.train))
        notes.append(
            f"Running statistics are estimated on {count:,} training examples, those of the "
            "trained networks too."
        )
    times = f"Drawn anew is the mean of {bench.draws} draws" if bench.draws > 1 else "One draw"
    if not isinstance(bench.model, nn.Module):
        notes.append(f"{times} by the function that makes the network.")
        return notes
    notes.append(f"{times} by each layer's reset_parameters().")
    if missing := [unit.name for unit in bench.units if not redrawable(net, unit)]:
        notes.append(f"Not drawn anew, for want of a reset_parameters(): {', '.join(missing)}.")
    if trained:
        notes.append("All networks start from the same weights; they differ in the data's order.")
    return notes
