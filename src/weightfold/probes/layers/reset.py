"""wf.layer_reset: each layer set back to earlier epochs or drawn anew, and the network tested."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Unpack

import torch
from torch import nn

from weightfold.core.arguments import device_of, gathered
from weightfold.data.pairs import Data
from weightfold.hints import check_arguments
from weightfold.probes.layers.batch_norm import running_statistics
from weightfold.probes.layers.cells import CALIBRATION, Bench, measure_cells, redrawable
from weightfold.probes.layers.finding import LayerReset
from weightfold.probes.layers.measurements import Cell, Distance, as_error
from weightfold.probes.layers.networks import (
    Network,
    given_networks,
    saved_epochs,
    trained_networks,
)
from weightfold.probes.layers.options import ResetKeywords, ResetOptions
from weightfold.probes.layers.units import Unit, check_plain, kept_tensors, layer_units
from weightfold.probes.models import Model, check_network, net_of
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds

RECIPE = Recipe(epochs=32, lr=0.05, crop_padding=0, flip=False)
"""Ours: the survey says only "until convergence", with weights kept up to epoch 100."""


@register_probe(
    "layer-reset",
    "which layers matter: each set back to an earlier epoch, or drawn anew",
    finds=LayerReset,
    options=ResetOptions,
)
def layer_reset(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 3,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[ResetKeywords],
) -> LayerReset:
    """Which layers matter: each set back to earlier epochs, or drawn anew, the others trained.

    Zhang, Bengio and Singer 2022, "Are All Layers Created Equal?". A layer is set back together
    with the normalisations that read its output directly, see `layer_units`, and the network is
    tested without further training.

    >>> import torch, weightfold as wf
    >>> x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> from torch.nn import Linear, ReLU, Sequential
    >>> make = lambda seed: Sequential(Linear(6, 8), ReLU(), Linear(8, 2))
    >>> quick = wf.Recipe(epochs=8, lr=0.2, batch_size=20, crop_padding=0, flip=False)
    >>> data = (x[:60], y[:60]), (x[60:], y[60:])
    >>> found = wf.layer_reset(make, data, bn="keep", seeds=1, recipe=quick, progress=False)
    >>> [unit.name for unit in found.units], found.epochs
    (['0', '2'], (0, 1, 2, 4, 8))

    Args:
        net: A module, or a function that makes the network of a seed; left unchanged. All seeds
            of a module start from its weights.
        data: A task; data alone, as `weightfold.data.as_dataset` takes it, is to be classified. Its
            test set is what networks are tested on.
        seeds: Of the networks to train, a count n standing for 0 to n - 1; not used with
            `checkpoints`.
        folder: Where a call that was stopped goes on from. Calls with other `bn` may share it, and
            with it the trained networks. None: nothing is written.
        device: To train and test on; "auto": an accelerator if there is one.
        progress: As for `progress_bar`.
        recipe: How to train; not used with `checkpoints`.
        **options: Fields of `ResetOptions`, of which `bn` must be given; or one as `options`.

    Raises:
        TypeError: `net` or `data` is of no such kind, the network is charted, `bn` is not given, or
            `options` has no such field.
        ValueError: An argument is out of range, or a checkpoint is of another network.
        FileNotFoundError: A checkpoint's file is missing.
        FileExistsError: The folder holds something else.
        NonFiniteLoss: No network could be trained.
    """
    check_arguments(layer_reset, folder=folder, progress=progress, recipe=recipe)
    chosen, device = gathered(ResetOptions, options), device_of(device)
    checkpoints, bn = chosen.checkpoints, chosen.bn
    seeds = as_seeds(seeds) if checkpoints is None else (0,)
    task = as_task(data)
    samples = task.dataset
    first = net_of(net, seeds[0])
    check_plain(first, "net")
    check_network(first, task, device)
    units = layer_units(first, samples.normalize(samples.train.inputs[:1]))
    bench = Bench(units, bn, replace(task, dataset=samples.to(device)), chosen.draws, net)
    networks, failed = [], ()
    if checkpoints is not None:
        networks = given_networks(first, checkpoints, device)
        epochs, training = tuple(networks[0].past), 0
    else:
        epochs = saved_epochs(chosen.reset_to, recipe.epochs)
        training = len(seeds) * recipe.epochs
    total = training + len(networks or seeds) * bench.cells_in(len(epochs))
    with progress_bar(progress, LayerReset.probe) as show:
        if checkpoints is None:
            networks, failed = trained_networks(
                net,
                task,
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
        network=f"{type(first).__name__} ({sum(unit.parameters for unit in units):,} weights)",
        data=samples.name,
        bn=bn,
        batch_norms=len(running_statistics(first)),
        epochs=epochs,
        seeds=tuple(network.seed for network in networks),
        units=units,
        cells=tuple(cells),
        distances=tuple(_distance(unit, network) for network in networks for unit in units),
        chance=as_error(task.measure, task.baseline()),
        measure=task.measure,
        recipe=asdict(recipe) if checkpoints is None else None,
        notes=(*_notes(first, bench, trained=checkpoints is None), *failed),
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
        count = min(CALIBRATION, len(bench.task.dataset.train))
        notes.append(
            f"Running statistics are estimated on {count:,} training examples, those of the "
            "trained networks too."
        )
    times = f"Drawn anew is the mean of {bench.draws} draws" if bench.draws > 1 else "One draw"
    if not isinstance(bench.net, nn.Module):
        notes.append(f"{times} by the function that makes the network.")
        return notes
    notes.append(f"{times} by each layer's reset_parameters().")
    if missing := [unit.name for unit in bench.units if not redrawable(net, unit)]:
        notes.append(f"Not drawn anew, for want of a reset_parameters(): {', '.join(missing)}.")
    if trained:
        notes.append("All networks start from the same weights; they differ in the data's order.")
    return notes
