"""`wf.intrinsic_dimension`: train in random subspaces of growing dimension."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, sqrt
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

import torch
from torch import nn

from weightfold.core.select import Where
from weightfold.data import Dataset
from weightfold.data.pairs import Data, as_dataset
from weightfold.methods.subspace.projections import KINDS, Kind
from weightfold.probes.intrinsic import search
from weightfold.probes.intrinsic.finding import IntrinsicDimension, Trained
from weightfold.probes.intrinsic.trials import Trials, plain
from weightfold.probes.models import Model, check_network
from weightfold.probes.registry import register_probe
from weightfold.train.progress import ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.together import Together, group_size

Metric = Literal["validation", "train"]

RECIPE = Recipe(epochs=20, batch_size=128, lr=0.1, schedule="constant", crop_padding=0, flip=False)
"""Ours for every network and dimension."""

BREADTH = 8
"""Dimensions that are tried side by side where runs are trained as one batch."""


@register_probe(
    "intrinsic-dimension",
    "how many parameters the network needs: the smallest random subspace it can train in",
    finds=IntrinsicDimension,
)
def intrinsic_dimension(
    model: Model,
    data: Data,
    *,
    threshold: float = 0.9,
    metric: Metric = "validation",
    kind: Kind = "srht",
    where: Where = None,
    start: int = 64,
    d_max: int | None = None,
    resolution: float = 0.1,
    recipe: Recipe = RECIPE,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | str | None = None,
    device: torch.device | str = "cpu",
    together: Together = "auto",
    progress: bool | ProgressCallback = True,
) -> IntrinsicDimension:
    """The smallest d for which training theta = theta0 + P psi does nearly as well as all of theta.

    The plain network is trained first, once for each seed; the bar is `threshold` times its mean
    accuracy. Then d is doubled until every seed reaches the bar, and points equally spaced in
    log d are put between the last d where not all did and the first where all did, see
    `weightfold.probes.intrinsic.search`. A seed's crossing is interpolated between the dimensions
    tried; the answer is the geometric mean of the crossings. All runs have one recipe and are
    judged by their accuracy at the last epoch.

    Source: Li, Farkhoor, Liu and Yosinski 2018, sections 2 and 3.

    Args:
        model: A module, whose present weights are theta0 for all seeds, or a function that makes
            the network of a seed. It may be a Charted net (`wf.expand`): theta then is its psi.
        data: Dataset, a Dataset, or a pair (training set, held-out set).
        threshold: Share of the plain network's accuracy, in (0, 1].
        metric: "validation": accuracy on the held-out set, `validation` if the data has one, else
            `test`. "train": on the training set, in eval mode, for data that cannot be
            generalised from, such as shuffled labels.
        kind: Of the projection P, see `wf.subspace`.
        where: Tensors that theta is made of; None: all trainable. All others stay as they are, in
            the plain network too.
        start: First d, at least 1; `d_max` if that is smaller.
        d_max: Largest d; None: D, the number of weights.
        resolution: The search ends when the two dimensions around the answer differ by no more
            than this share.
        recipe: Hyperparameters of all runs.
        seeds: Of data order, P, and the network where `model` is a function.
        folder: Runs are kept in its folder runs, and a stopped search goes on from there; None:
            nothing is written.
        device: To train on.
        together: Runs trained as one batch, see `fit_together`. Several dimensions are then
            trained as one: subsets of the columns of one P, as wide as the largest of them.
        progress: True shows a bar; a function is told instead.

    Returns:
        The answer with its interval and the accuracies it comes from. If `d_max` does not reach
        the bar with every seed it has no `dimension`, only the bound `tried`.

    Raises:
        FileExistsError: The folder holds other runs.
        TypeError: `model` or `data` is no such thing.
        ValueError: An option is out of range; the data has one class; parameters get no gradient;
            the plain network learns nothing, or its initial weights reach the bar.
    """
    seeds = tuple(seeds)
    samples = as_dataset(data)
    _check(threshold, metric, kind, resolution, seeds)
    net = plain(model, where, seeds[0])
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    check_network(net, samples, device, gradients=trained)
    size = sum(p.numel() for p in trained.values())
    d_max = size if d_max is None else d_max
    if not 1 <= d_max <= size:
        raise ValueError(f"d_max={d_max}: give 1 to {size}, the number of weights")
    if start < 1:
        raise ValueError(f"start={start}: give a dimension of at least 1")
    side_by_side = group_size(net, samples, BREADTH * len(seeds), together, device)
    with progress_bar(progress, "intrinsic dimension") as show:
        trials = Trials(
            model=model,
            where=where,
            kind=kind,
            samples=samples,
            part=_part(samples, metric),
            recipe=recipe,
            seeds=seeds,
            side_by_side=side_by_side,
            folder=None if folder is None else Path(folder) / "runs",
            device=device,
            show=show,
        )
        baselines = trials.plain()
        bar = _bar(baselines, samples, trials.part, threshold)
        search.search(
            trials.subspaces,
            bar,
            start=min(start, d_max),
            d_max=d_max,
            resolution=resolution,
            # A dense P for each run, as wide as the largest of several d, would fill any memory.
            breadth=1 if kind == "dense" else max(1, side_by_side // len(seeds)),
        )
    found = IntrinsicDimension(
        network=type(net).__name__,
        data=samples.name,
        parameters=size,
        metric=metric,
        part=trials.part,
        examples=len(samples.parts[trials.part]),
        threshold=threshold,
        kind=kind,
        seeds=seeds,
        baselines=baselines,
        trained=tuple(sorted(trials.trained, key=lambda run: run.dim or 0)),
        recipe=recipe,
        sessions=(session(device),),
    )
    return replace(found, notes=_notes(found, isinstance(model, nn.Module), side_by_side > 1))


def _check(
    threshold: float, metric: str, kind: str, resolution: float, seeds: tuple[int, ...]
) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: give a share in (0, 1], such as 0.9")
    if metric not in get_args(Metric):
        raise ValueError(f"metric={metric!r}; give one of {', '.join(get_args(Metric))}")
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; give one of {', '.join(KINDS)}")
    if not (resolution > 0 and isfinite(resolution)):
        raise ValueError(f"resolution={resolution}: give a share above 0, such as 0.1")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds}: give at least one, each once")


def _part(samples: Dataset, metric: Metric) -> str:
    if metric == "train":
        return "train"
    return "validation" if samples.validation is not None else "test"


def _bar(baselines: tuple[Trained, ...], samples: Dataset, part: str, threshold: float) -> float:
    """The accuracy to reach.

    Raises:
        ValueError: It is no accuracy that tells learning from not learning.
    """
    known = [run for run in baselines if run.accuracy is not None]
    if not known:
        raise ValueError(
            f"the plain network failed with every seed: {baselines[0].failed}; lower the "
            "recipe's lr, or check the network"
        )
    accuracy = fmean(run.accuracy or 0.0 for run in known)
    bar = threshold * accuracy
    labels = samples.parts[part].targets
    chance = (labels == samples.train.targets.bincount().argmax()).double().mean().item()
    error = sqrt(chance * (1 - chance) / len(labels))
    if accuracy <= chance + 3 * error:
        hint = "" if part == "train" else "; for labels without meaning use metric='train'"
        raise ValueError(
            f"the plain network's {part} accuracy is {accuracy:.4f}, not above that of always "
            f"answering one class ({chance:.4f}, standard error {error:.4f}): it learns nothing "
            f"with this recipe. Change lr or epochs{hint}"
        )
    if bar <= chance:
        raise ValueError(
            f"threshold={threshold} of the plain network's accuracy {accuracy:.4f} is {bar:.4f}, "
            f"which always answering one class reaches ({chance:.4f}); give a threshold above "
            f"{chance / accuracy:.3f}"
        )
    start = fmean(run.start for run in known)
    if start >= bar:
        raise ValueError(
            f"the weights that training starts from already have accuracy {start:.4f}, and the bar "
            f"is {bar:.4f}: nothing is to be learnt. Give an untrained network, or raise threshold"
        )
    return bar


def _notes(found: IntrinsicDimension, one_start: bool, as_one: bool) -> tuple[str, ...]:
    instead = ", for want of a validation set" if found.part == "test" else ""
    notes = [
        f"Accuracy is taken at the last epoch, on the {found.examples:,} examples of the "
        f"{found.part} set{instead}. The bar is a mean over seeds; how uncertain it is, is not in "
        "the interval.",
        f"Fixed before the search: {found.policy}.",
        "Seeds differ in data order and subspace; "
        + ("all start from the same weights." if one_start else "each has a network of its own."),
        "Subspaces of a batch are nested: columns of one projection as wide as the largest d."
        if as_one
        else "The subspace of each d is drawn by itself.",
        "Where a seed crosses the bar is interpolated, linearly in log d, between two dimensions.",
    ]
    baseline, curve, bar = found.baseline, found.curve, found.bar
    if (baseline.std or 0) > (1 - found.threshold) * baseline.mean:
        notes.append(
            f"The plain network's own accuracy spreads by {100 * (baseline.std or 0):.1f} points "
            "over seeds, more than the threshold leaves: it is not trained reliably."
        )
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
