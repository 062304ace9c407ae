"""wf.smoothness: how smooth the loss is along the steps of a training."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor, nn

from weightfold.core.arguments import gathered
from weightfold.data.pairs import Data
from weightfold.probes.layers.networks import Network, trained_networks
from weightfold.probes.models import Model, net_of
from weightfold.probes.objective import Objective
from weightfold.probes.registry import register_probe
from weightfold.probes.smoothness.finding import Course, Smoothness
from weightfold.probes.smoothness.measure import Moment, activations, histograms, moment, spans
from weightfold.probes.smoothness.options import SmoothnessKeywords, SmoothnessOptions
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds
from weightfold.train.together import device_of

RECIPE = Recipe(epochs=5, lr=0.1, schedule="constant", momentum=0.0, crop_padding=0, flip=False)
"""Ours, but for the learning rate of Santurkar et al. 2018."""


@register_probe(
    "smoothness",
    "how smooth the loss is along training: its range, its gradient's, and the layers' shift",
    finds=Smoothness,
    options=SmoothnessOptions,
)
def smoothness(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[SmoothnessKeywords],
) -> Smoothness:
    """Train, and look at some steps at the loss ahead and at the layers' gradients.

    >>> import weightfold as wf
    >>> net = wf.nets.build("mlp,depth=1,width=4,size=8", num_classes=10, in_channels=1)
    >>> data = wf.data.load("digits,limit=64")
    >>> recipe = wf.Recipe(epochs=1, batch_size=32, lr=0.01, crop_padding=0, flip=False)
    >>> found = wf.smoothness(net, data, recipe=recipe, every=1, points=2, progress=False)
    >>> len(found.courses)
    1

    Weights are kept at those steps, and looked at afterwards: on one batch of the recipe's size,
    the same at all steps, without augmentation, in train mode (batch norm with the batch's own
    statistics; what is random with the same random numbers). In the coordinates that are trained.

    Args:
        net: A module, or a function that makes the network of a seed; left unchanged.
        data: A task; data alone is to be classified.
        seeds: Of the networks.
        folder: Where trainings go on from; None: nothing is written.
        device: To train on; "auto": an accelerator if there is one.
        progress: As for `progress_bar`.
        recipe: How to train; its `lr` also moves the layers below for the shift.
        **options: Fields of `SmoothnessOptions`, or one as `options`.

    Raises:
        TypeError: `net` is of no such kind, or there is no such option.
        ValueError: An argument is out of range.
        NonFiniteLoss: No network could be trained.
    """
    chosen, task = gathered(SmoothnessOptions, options), as_task(data)
    device, seeds = device_of(device), as_seeds(seeds)
    task.check(first := net_of(net, seeds[0]))
    steps = recipe.epochs * len(task.batches("train", batch_size=recipe.batch_size))
    marks = tuple(sorted({*range(0, steps, chosen.every), steps}))
    with progress_bar(progress, Smoothness.probe) as show:
        total = len(seeds) * (recipe.epochs + 1)
        networks, failed = trained_networks(
            net,
            task,
            recipe,
            seeds,
            marks,
            folder=None if folder is None else Path(folder) / "runs",
            device=device,
            hear=lambda epochs: show(Progress(epochs, total, "training")),
            unit=1,
        )
        courses = []
        for place, network in enumerate(networks):
            show(Progress(len(seeds) * recipe.epochs + place, total, f"seed {network.seed}"))
            courses.append(_course(network, task, recipe, chosen))
    return Smoothness(
        network=f"{type(first).__name__} ({sum(p.numel() for p in first.parameters()):,} weights)",
        data=task.dataset.name,
        lr=recipe.lr,
        batch=min(recipe.batch_size, len(task.dataset.train)),
        measure=task.measure.name,
        courses=tuple(courses),
        recipe=asdict(recipe),
        notes=failed,
        sessions=(session(device),),
    )


def _course(network: Network, task: Task, recipe: Recipe, chosen: SmoothnessOptions) -> Course:
    net, measure = network.net.train(), task.measure.name
    looked: list[Moment] = []
    outputs: dict[str, dict[int, Tensor]] = {}
    for step, state in network.past.items():
        net.load_state_dict(state)
        objective = Objective(
            net, task, coordinates="psi", bn="batch",
            examples=recipe.batch_size, batch_size=recipe.batch_size,
        )  # fmt: skip
        looked.append(
            moment(objective, step, points=chosen.points, lr=recipe.lr, shifts=chosen.shifts)
        )
        layers = _drawn(objective, chosen.layers)
        seen = activations(objective.net, layers, next(objective.batches()).inputs)
        for layer, values in seen.items():
            outputs.setdefault(layer, {})[step] = values
    assert network.history is not None
    rows = network.history.rows
    return Course(
        network.seed,
        tuple(row.get(f"train_{measure}") for row in rows if row.epoch),
        tuple(row.get(f"test_{measure}") for row in rows),
        tuple(looked),
        tuple(histograms(layer, values) for layer, values in outputs.items()),
    )


def _drawn(objective: Objective, count: int) -> list[str]:
    """Layers evenly spread over the depth; of a Charted net those that are modules."""
    modules: dict[str, nn.Module] = dict(objective.net.named_modules())
    names = [name for name in spans(objective) if isinstance(modules[name], nn.Linear | nn.Conv2d)]
    if not count or not names:
        return []
    return [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(min(count, len(names)))]
