"""wf.path: the loss on the way from one network to another."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import nn

from weightfold.core.arguments import gathered
from weightfold.core.slots import tensor_at
from weightfold.data.pairs import Data
from weightfold.probes.landscape.directions import point_of
from weightfold.probes.landscape.evaluate import evaluate
from weightfold.probes.landscape.probe import check_bn
from weightfold.probes.layers.splice import read_checkpoint
from weightfold.probes.models import Model, net_of
from weightfold.probes.objective import Objective, check_fits, deployed
from weightfold.probes.path.align import align
from weightfold.probes.path.curves import Curve, bezier, linear, norm_preserving, string
from weightfold.probes.path.finding import LossPath
from weightfold.probes.path.options import PathKeywords, PathOptions
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds
from weightfold.train.together import device_of


@register_probe(
    "path",
    "how high the loss rises on the way from one trained network to another",
    finds=LossPath,
    options=PathOptions,
    trained=True,
)
def path(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    **options: Unpack[PathKeywords],
) -> LossPath:
    """The loss on a path from one network to another of the kind, in eval mode.

    >>> import weightfold as wf
    >>> net = wf.nets.build("mlp,depth=1,width=4,size=8", num_classes=10, in_channels=1)
    >>> data = wf.data.load("digits,limit=64")
    >>> found = wf.path(net, data, to=net, points=3, progress=False)
    >>> found.at, found.barrier
    ((0.0, 0.5, 1.0), 0.0)

    Args:
        net: A module, or a function of the first seed; left unchanged. A Charted net is deployed.
        data: A task; data alone is to be classified.
        seeds: The first is that of what is random in the descent.
        device: To compute on; "auto": an accelerator if there is one.
        progress: As for `progress_bar`.
        **options: Fields of `PathOptions`, of which `to` must be given; or one as `options`.

    Raises:
        TypeError: `net` or `to` is of no such kind, or there is no such option.
        ValueError: An argument is out of range, `bn` is not given for a network with batch norm,
            `to` is another network, or aligning changes its function.
        FileNotFoundError: The file of `to` is missing.
    """
    chosen, task, device = gathered(PathOptions, options), as_task(data), device_of(device)
    seed = as_seeds(seeds)[0]
    first = deployed(net_of(net, seed), "theta").eval()
    check_fits(first, task)
    check_bn(first, chosen.bn)
    other = _other(first, chosen)
    objective = Objective(
        first,
        task,
        bn=chosen.bn or "keep",
        part=chosen.part,
        examples=chosen.examples,
        device=device,
    )
    start, end = objective.flat(), point_of(objective, other, "to")
    before = (end - start).norm().item()
    if chosen.align:
        example = task.dataset.normalize(task.dataset.test.inputs[:4])
        end = point_of(objective, align(other, first, example), "to")
    at = tuple(i / (chosen.points - 1) for i in range(chosen.points))
    with progress_bar(progress, LossPath.probe) as show:
        curve = _curve(objective, chosen, start, end, seed)
        values = evaluate(objective, map(curve, at), len(at), lambda n: show(Progress(n, len(at))))
    return LossPath(
        network=f"{type(first).__name__} ({objective.size:,} weights)",
        data=task.dataset.name,
        statement=objective.statement,
        kind=chosen.kind,
        aligned=chosen.align,
        distance=(end - start).norm().item(),
        before=before,
        at=at,
        values={name: tuple(found) for name, found in values.items()},
        sessions=(session(device),),
    )


def _other(first: nn.Module, chosen: PathOptions) -> nn.Module:
    if isinstance(chosen.to, nn.Module):
        return deployed(chosen.to, "theta").eval()
    tensors = read_checkpoint(chosen.to, first, "to")
    other = deployed(first, "theta")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor_at(other, name).copy_(tensor)
    return other


def _curve(
    objective: Objective, chosen: PathOptions, a: torch.Tensor, b: torch.Tensor, seed: int
) -> Curve:
    steps = {"steps": chosen.steps, "lr": chosen.lr}
    if chosen.kind == "bezier":
        return bezier(objective, a, b, seed=seed, **steps)
    if chosen.kind == "string":
        return string(objective, a, b, pivots=chosen.pivots, **steps)
    if chosen.kind == "norm-preserving":
        return norm_preserving(objective, a, b)
    return linear(a, b)
