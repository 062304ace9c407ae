"""A task's loss and scores at many points of the space of weights."""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.modules.conv import _ConvNd

from weightfold.core.slots import tensor_at
from weightfold.probes.layers.batch_norm import recalibrate
from weightfold.probes.objective import CALIBRATION, Batch, Objective
from weightfold.train.together import SMALL

Values = dict[str, list[float | None]]
"""Measure -> its value at each point, None where it is not finite."""

POINTS, EXAMPLES, BYTES = 64, 2**13, 2**28
"""At most in a vmapped call: points; points times examples; bytes of weights."""


def evaluate(
    objective: Objective, points: Sequence[Tensor] | Iterator[Tensor], count: int,
    hear: Callable[[int], None] = lambda done: None,
) -> Values:  # fmt: skip
    """Mean loss ("loss") and scores at some points.

    Points are vmapped; but not on a CPU those of networks with convolutions or of more than `SMALL`
    weights, which fill it alone, nor where running statistics are estimated anew at each point.

    Args:
        objective: The task, the network and the data.
        points: Vectors (size,) as of `objective.flat`, made one after another.
        count: How many.
        hear: Called with the number of points done.
    """
    alone = objective.bn == "recalibrate"
    if objective.device.type == "cpu":
        convolves = any(isinstance(m, _ConvNd) for m in objective.net.modules())
        alone = alone or convolves or objective.size > SMALL
    width = 1
    if not alone and objective.task.stackable:
        size = objective.size * objective.dtype.itemsize
        batch = next(objective.batches()).inputs
        width = max(1, min(POINTS, EXAMPLES // len(batch), BYTES // size))
    calibration = objective.task.dataset.limited(train=CALIBRATION).to(objective.device)
    found: Values = {}
    source, done = iter(points), 0
    while done < count:
        chunk = torch.stack([next(source) for _ in range(min(width, count - done))])
        if width == 1:
            _take(objective, chunk[0])
        if objective.bn == "recalibrate":
            recalibrate(objective.net, calibration)
        for name, values in _means(objective, chunk if width > 1 else None).items():
            found.setdefault(name, []).extend(v if isfinite(v) else None for v in values.tolist())
        done += len(chunk)
        hear(done)
    _take(objective, objective.flat())
    return found


@torch.no_grad()
def _means(objective: Objective, points: Tensor | None) -> dict[str, Tensor]:
    """Measure -> (points,), float64; None: of one point, which the network has taken."""
    total: dict[str, Tensor] = {}
    for batch in objective.batches():

        def one(flat: Tensor | None, batch: Batch = batch) -> dict[str, Tensor]:
            net = objective.net if flat is None else objective.call(objective.split(flat))
            terms = objective.task.objective(net, batch.inputs, batch.targets)
            scores = {name: values.mean() for name, values in terms.scores.items()}
            return {"loss": terms.losses.mean(), **scores}

        if points is None:
            means = {name: value[None] for name, value in one(None).items()}
        else:
            means = _together(one, points)
        for name, values in means.items():
            before = total.get(name, torch.zeros(len(values), dtype=torch.float64))
            total[name] = before + batch.share * values.double().cpu()
    return total


def _together(one: Callable[[Tensor], dict[str, Tensor]], points: Tensor) -> dict[str, Tensor]:
    try:
        return vmap(one, randomness="same")(points)
    except RuntimeError:  # vmap knows no recurrent layers and no branching on values
        pass
    found = [one(point) for point in points]
    return {name: torch.stack([each[name] for each in found]) for name in found[0]}


@torch.no_grad()
def _take(objective: Objective, point: Tensor) -> None:
    for name, tensor in objective.split(point).items():
        tensor_at(objective.net, name).copy_(tensor)


def needs_bn(net: nn.Module) -> bool:
    """Whether something normalises by running statistics."""
    return any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        for m in net.modules()
    )
