"""wf.landscape: the loss on a line or plane through a network."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor, nn

from weightfold.core.arguments import gathered
from weightfold.data.pairs import Data
from weightfold.probes.landscape.directions import gradient_direction, point_of, random_direction
from weightfold.probes.landscape.evaluate import evaluate, needs_bn
from weightfold.probes.landscape.finding import Landscape, Slice
from weightfold.probes.landscape.options import LandscapeKeywords, LandscapeOptions
from weightfold.probes.layers.networks import trained_networks
from weightfold.probes.models import Model, net_of
from weightfold.probes.objective import Objective, check_fits
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds, mixed_seed
from weightfold.train.together import device_of

RECIPE = Recipe(epochs=12, crop_padding=0, flip=False)


@register_probe(
    "landscape",
    "the loss around a network, on a line or plane in the space of its weights",
    finds=Landscape,
    options=LandscapeOptions,
)
def landscape(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[LandscapeKeywords],
) -> Landscape:
    """The loss on a line or a plane through a network's weights, in eval mode.

    >>> import weightfold as wf
    >>> net = wf.nets.build("mlp,depth=1,width=4,size=8", num_classes=10, in_channels=1)
    >>> data = wf.data.load("digits,limit=64")
    >>> found = wf.landscape(net, data, along=("random",), points=3, progress=False)
    >>> found.axes
    ((-1.0, 0.0, 1.0),)

    Args:
        net: A module, or a function that makes the network of a seed; left unchanged.
        data: A task; data alone is to be classified.
        seeds: Of networks and random directions.
        folder: Where trainings go on from, with `train`.
        device: To compute on; "auto": an accelerator if there is one.
        progress: As for `progress_bar`.
        recipe: How to train, with `train`.
        **options: Fields of `LandscapeOptions`, or one as `options`.

    Raises:
        TypeError: `net` is of no such kind, or there is no such option.
        ValueError: An argument is out of range, `bn` is not given for a network with batch norm,
            or a network of `to` is another one.
        FileNotFoundError: A file of `to` is missing.
    """
    chosen, task = gathered(LandscapeOptions, options), as_task(data)
    device, seeds = device_of(device), as_seeds(seeds)
    check_fits(first := net_of(net, seeds[0]), task)
    check_bn(first, chosen.bn)
    slices, notes, objective = [], [], None
    axes = tuple(axis_of(along, chosen) for along in chosen.along)
    count = prod(map(len, axes))
    with progress_bar(progress, Landscape.probe) as show:
        nets = {seed: net_of(net, seed) for seed in seeds}
        if chosen.train:
            networks, failed = trained_networks(
                net,
                task,
                recipe,
                seeds,
                (recipe.epochs,),
                folder=None if folder is None else Path(folder) / "runs",
                device=device,
                hear=lambda epochs: show(Progress(0, 1, f"epoch {epochs}")),
            )
            notes += failed
            nets = {one.seed: one.net for one in networks}
        for done, (seed, made) in enumerate(nets.items()):
            objective = objective_of(made, task, chosen, device)
            directions = _directions(objective, chosen, seed)
            values = evaluate(
                objective,
                _points(objective.flat(), directions, axes),
                count,
                lambda n, at=done: show(Progress(at * count + n, len(nets) * count)),
            )
            slices.append(Slice(seed, {name: tuple(found) for name, found in values.items()}))
    assert objective is not None
    return Landscape(
        network=f"{type(objective.net).__name__} ({objective.size:,} coordinates)",
        data=task.dataset.name,
        statement=objective.statement,
        along=tuple(chosen.along),
        axes=axes,
        slices=tuple(slices),
        recipe=asdict(recipe) if chosen.train else None,
        notes=tuple(notes),
        sessions=(session(device),),
    )


def check_bn(net: nn.Module, bn: str | None) -> None:
    """Refuse to guess what becomes of running statistics.

    Raises:
        ValueError: `bn` is not given for a network with batch norm.
    """
    if bn is None and needs_bn(net):
        raise ValueError(
            "bn=None, but the network has batch norms: give 'keep', 'recalibrate' or 'batch'; what "
            "becomes of running statistics decides the outcome"
        )


def objective_of(
    net: nn.Module, task: Task, chosen: LandscapeOptions, device: torch.device
) -> Objective:
    """The loss in eval mode."""
    return Objective(
        net.eval(),
        task,
        coordinates=chosen.coordinates,
        bn=chosen.bn or "keep",
        part=chosen.part,
        examples=chosen.examples,
        device=device,
    )


def axis_of(along: str, chosen: LandscapeOptions) -> tuple[float, ...]:
    """The coordinates on an axis; 0 is among them, and 1 of one that goes to a network."""
    if along == "to":
        steps = max(1, round((chosen.points - 1) / (1 + chosen.span)))
        beyond = int(steps * chosen.span / 2)
        return tuple(i / steps for i in range(-beyond, steps + beyond + 1))
    half = chosen.points // 2
    return tuple(chosen.span * (i - half) / half for i in range(2 * half + 1))


def _directions(objective: Objective, chosen: LandscapeOptions, seed: int) -> list[Tensor]:
    found, others = [], iter(chosen.to)
    for place, along in enumerate(chosen.along):
        if along == "random":
            drawn = mixed_seed("direction", seed, place)
            found.append(random_direction(objective, drawn, biases=chosen.biases))
        elif along == "gradient":
            found.append(gradient_direction(objective, biases=chosen.biases))
        else:
            name = f"to[{len(chosen.to) - 1}]"
            found.append(point_of(objective, next(others), name) - objective.flat())
    return found


def _points(
    start: Tensor, directions: list[Tensor], axes: tuple[tuple[float, ...], ...]
) -> Iterator[Tensor]:
    for a in axes[0]:
        if len(axes) == 1:
            yield start + a * directions[0]
        else:
            base = start + a * directions[0]
            yield from (base + b * directions[1] for b in axes[1])
