"""How fast a network is on this machine."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from weightfold.core.arguments import device_of
from weightfold.data import Dataset
from weightfold.lab.budget import Pace
from weightfold.methods.subspace.verb import subspace
from weightfold.probes.layers.batch_norm import running_statistics
from weightfold.probes.layers.units import layer_units
from weightfold.probes.models import Model, net_of
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import evaluating
from weightfold.train.recipe import Recipe
from weightfold.train.strategies.fabric import Fabric, Single


def pace_of(net: Model, samples: Dataset, device: str) -> Pace:
    """Times of a network's steps and evaluations, medians over about half a second each."""
    one = net_of(net, 0)
    units = layer_units(one, samples.normalize(samples.train.inputs[:1]))
    one.to(device)
    count = sum(p.numel() for p in one.parameters() if p.requires_grad)
    few, many = min(16, len(samples.train)), min(64, len(samples.train))
    x = samples.normalize(samples.train.inputs[:many]).to(device)
    y = samples.train.targets[:many].to(device)
    recipe, task = Recipe(lr=1e-4, crop_padding=0, flip=False), as_task(samples)
    fabric = Fabric(accelerator=device_of(device).type, devices=1)
    plain, projected = (
        Single(fabric, each, task, recipe, 0)
        for each in (one, subspace(one, max(1, min(count, count // 100))))
    )

    def step(single: Single, batch: int) -> float:
        single.begin_epoch(0)
        return _seconds(lambda: single.step((x[:batch], y[:batch]), 1e-4).cpu())

    @torch.no_grad()
    def look(x: Tensor) -> Tensor:
        with evaluating(one):
            return one(x)

    short, long = step(plain, few), step(plain, many)
    example = max(0.0, (long - short) / (many - few)) if many > few else short / few
    return Pace(
        step=max(0.0, short - few * example),
        example=example,
        look=_seconds(lambda: look(x).cpu()) / many,
        projection=max(0.0, step(projected, few) - short),
        parameters=count,
        layers=len(units),
        statistics=bool(running_statistics(one)),
        train=len(samples.train),
        test=len(samples.test),
    )


def _seconds(call: Callable[[], object]) -> float:
    """Median time of a call, over about half a second; the first is left out if it was short."""
    times: list[float] = []
    while sum(times) < 0.5 or (len(times) < 4 and sum(times) < 3):
        begin = perf_counter()
        call()
        times.append(perf_counter() - begin)
    return median(times[1:] or times)
