"""How fast a network is on this machine."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

from weightfold.data.samples import Samples
from weightfold.lab.budget import Pace
from weightfold.methods.subspace.verb import subspace
from weightfold.probes.layers.batch_norm import running_statistics
from weightfold.probes.layers.units import layer_units
from weightfold.probes.models import Model, net_of
from weightfold.train.recipe import Recipe
from weightfold.train.strategies.stack import Stack


def pace_of(net: Model, samples: Samples, device: str) -> Pace:
    """Times of a network's steps and evaluations, medians over about half a second each."""
    one = net_of(net, 0)
    units = layer_units(one, samples.inputs(samples.train.x[:1]))
    one.to(device)
    count = sum(p.numel() for p in one.parameters() if p.requires_grad)
    few, many = min(16, len(samples.train)), min(64, len(samples.train))
    x = samples.inputs(samples.train.x[:many]).to(device)
    y = samples.train.y[:many].to(device)
    recipe = Recipe(lr=1e-4)
    plain, projected = (
        Stack([each], recipe) for each in (one, subspace(one, max(1, min(count, count // 100))))
    )

    def step(stack: Stack, batch: int) -> float:
        return _seconds(lambda: stack.step(x[None, :batch], y[None, :batch], 1e-4))

    short, long = step(plain, few), step(plain, many)
    example = max(0.0, (long - short) / (many - few)) if many > few else short / few
    return Pace(
        step=max(0.0, short - few * example),
        example=example,
        look=_seconds(lambda: plain.logits(x, shared=True).cpu()) / many,
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
