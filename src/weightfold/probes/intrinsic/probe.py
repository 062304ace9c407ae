"""`wf.intrinsic_dimension`: train in random subspaces of growing dimension."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import torch
from torch import nn

from weightfold.core.arguments import device_of, gathered
from weightfold.data import Dataset
from weightfold.data.pairs import Data
from weightfold.hints import check_arguments
from weightfold.probes.intrinsic import search
from weightfold.probes.intrinsic.bar import check_bar, trivial_value
from weightfold.probes.intrinsic.finding import IntrinsicDimension
from weightfold.probes.intrinsic.options import IntrinsicKeywords, IntrinsicOptions, Metric
from weightfold.probes.intrinsic.trials import Trials, plain
from weightfold.probes.models import Model, check_network
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds
from weightfold.train.together import group_size

RECIPE = Recipe(epochs=20, batch_size=128, lr=0.1, schedule="constant", crop_padding=0, flip=False)
"""Ours for every network and dimension."""

BREADTH = 8
"""Dimensions that are tried side by side where runs are trained as one batch."""


@register_probe(
    "intrinsic-dimension",
    "how many parameters the network needs: the smallest random subspace it can train in",
    finds=IntrinsicDimension,
    options=IntrinsicOptions,
)
def intrinsic_dimension(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 3,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[IntrinsicKeywords],
) -> IntrinsicDimension:
    """The smallest d for which training theta = theta0 + P psi does nearly as well as all of theta.

    The plain network is trained first, once for each seed; the bar is `threshold` times its mean
    accuracy, or `threshold` itself if that is `absolute`; of a task that is judged otherwise, see
    `IntrinsicDimension.bar`. Then d is doubled until every seed
    reaches the bar, and points equally spaced in log d are put between the last d where not all did
    and the first where all did, see `weightfold.probes.intrinsic.search`. A seed's crossing is
    interpolated between the dimensions tried; the answer is the geometric mean of the crossings.
    All runs have one recipe and are judged by the task's first measure at the last epoch.

    Source: Li, Farkhoor, Liu and Yosinski 2018, sections 2 and 3.

    >>> import torch, weightfold as wf
    >>> x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> from torch.nn import Linear, ReLU, Sequential
    >>> make = lambda seed: Sequential(Linear(6, 8), ReLU(), Linear(8, 2))
    >>> quick = wf.Recipe(epochs=8, lr=0.2, batch_size=20, crop_padding=0, flip=False)
    >>> data = (x[:60], y[:60]), (x[60:], y[60:])
    >>> options = {"start": 16, "resolution": 1.0, "together": 1}
    >>> found = wf.intrinsic_dimension(make, data, seeds=1, recipe=quick, progress=False, **options)
    >>> found.parameters, found.threshold
    (74, 0.9)

    Args:
        net: A module, whose present weights are theta0 for all seeds, or a function that makes
            the network of a seed. It may be a Charted net (`wf.expand`): theta then is its psi.
        data: A task; data alone, as `weightfold.data.as_dataset` takes it, is to be classified.
        seeds: Of data order, P, and the network where `net` is a function; a count n: 0 to n - 1.
        folder: Runs are kept in its folder runs, and a stopped search goes on from there; None:
            nothing is written.
        device: To train on; "auto": an accelerator if there is one.
        progress: True shows a bar; a function is told instead.
        recipe: Hyperparameters of all runs.
        **options: Fields of `IntrinsicOptions`, or one as `options`.

    Returns:
        The answer with its interval and the values it comes from. If `d_max` does not reach
        the bar with every seed it has no `dimension`, only the bound `tried`.

    Raises:
        FileExistsError: The folder holds other runs.
        TypeError: `net` or `data` is no such thing, or `options` has no such field.
        ValueError: An option is out of range; the data has one class; parameters get no gradient;
            the plain network learns nothing or stays below an absolute bar, or its initial
            weights reach the bar.
    """
    check_arguments(intrinsic_dimension, folder=folder, progress=progress, recipe=recipe)
    chosen, seeds, device = gathered(IntrinsicOptions, options), as_seeds(seeds), device_of(device)
    task = as_task(data)
    first = plain(net, chosen.where, seeds[0])
    size = _size(first, task, device)
    d_max = size if chosen.d_max is None else chosen.d_max
    if not 1 <= d_max <= size:
        raise ValueError(f"d_max={d_max}: give 1 to {size}, the number of weights")
    side_by_side = group_size(first, task, BREADTH * len(seeds), chosen.together, device)
    part = _part(task.dataset, chosen.metric)
    with progress_bar(progress, "intrinsic dimension") as show:
        trials = Trials(
            net=net,
            options=chosen,
            task=task,
            part=part,
            recipe=recipe,
            seeds=seeds,
            side_by_side=side_by_side,
            folder=None if folder is None else Path(folder) / "runs",
            device=device,
            show=show,
        )
        found = IntrinsicDimension(
            network=type(first).__name__,
            data=task.dataset.name,
            parameters=size,
            metric=chosen.metric,
            part=part,
            examples=len(task.dataset.parts[part]),
            threshold=chosen.threshold,
            absolute=chosen.absolute,
            kind=chosen.kind,
            seeds=seeds,
            baselines=trials.plain(),
            trained=(),
            recipe=recipe,
            sessions=(session(device),),
            measure=task.measure,
            trivial=trivial_value(task, part),
        )
        check_bar(found)
        search.search(
            lambda dims: search.heights(trials.subspaces(dims), task.measure),
            found.height(found.bar),
            start=min(chosen.start, d_max),
            d_max=d_max,
            resolution=chosen.resolution,
            # A dense P for each run, as wide as the largest of several d, would fill any memory.
            breadth=1 if chosen.kind == "dense" else max(1, side_by_side // len(seeds)),
        )
    found = replace(found, trained=tuple(sorted(trials.trained, key=lambda run: run.dim or 0)))
    return replace(found, notes=_notes(found, isinstance(net, nn.Module), side_by_side > 1))


def _size(net: nn.Module, task: Task, device: torch.device) -> int:
    """Number of weights that are trained, each of which must get a gradient."""
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    check_network(net, task, device, gradients=trained)
    return sum(p.numel() for p in trained.values())


def _part(samples: Dataset, metric: Metric) -> str:
    if metric == "train":
        return "train"
    return "validation" if samples.validation is not None else "test"


def _notes(found: IntrinsicDimension, one_start: bool, as_one: bool) -> tuple[str, ...]:
    instead = ", for want of a validation set" if found.part == "test" else ""
    notes = [
        f"The {found.measure.title} is taken at the last epoch, on the {found.examples:,} examples "
        f"of the {found.part} set{instead}. The bar is a mean over seeds; how uncertain it is, is "
        "not in the interval.",
        f"Fixed before the search: {found.policy}.",
        "Seeds differ in data order and subspace; "
        + ("all start from the same weights." if one_start else "each has a network of its own."),
        "Subspaces of a batch are nested: columns of one projection as wide as the largest d."
        if as_one
        else "The subspace of each d is drawn by itself.",
        "Where a seed crosses the bar is interpolated, linearly in log d, between two dimensions.",
    ]
    curve, bar = found.heights, found.height(found.bar)
    for index, seed in enumerate(found.seeds):
        if below := search.dips(curve, index, bar):
            listed = ", ".join(f"{d:,}" for d in below)
            notes.append(
                f"Seed {seed} reaches the bar and is below it again at d = {listed}; its first "
                "crossing is counted."
            )
    if found.dimension is not None:
        lost = [seed for seed, d in found.crossings.items() if d is None]
        if lost:
            listed = ", ".join(map(str, lost))
            notes.append(f"Left out, because its runs above failed: seed {listed}.")
        if found.bounded_above:
            notes.append(f"The bar is reached with the smallest d tried, {min(curve)}.")
    runs = (*found.baselines, *found.trained)
    notes += [f"Left out: {run.name}, {run.failed}." for run in runs if run.failed]
    return tuple(notes)
