"""`wf.memorization`: does the network fit noise, and how much later than true data?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import torch

from weightfold.core.arguments import device_of, gathered
from weightfold.data import Dataset
from weightfold.data.disturb import disturb
from weightfold.data.pairs import Data
from weightfold.hints import check_arguments
from weightfold.probes.memory.critical import search
from weightfold.probes.memory.duplicates import contradictions
from weightfold.probes.memory.finding import Memorization
from weightfold.probes.memory.fits import Fit, Line
from weightfold.probes.memory.options import MemorizationKeywords, MemorizationOptions, Variant
from weightfold.probes.models import Model, check_network, labelled, net_of
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.history import History, Row
from weightfold.train.loop import REMEDY, NonFiniteLoss
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds
from weightfold.train.together import SIDE_BY_SIDE, Run, fit_together

RECIPE = Recipe(epochs=100, lr=0.01, schedule="constant", crop_padding=0, flip=False)
"""Momentum SGD in batches of 128 with the learning rate of Zhang et al.'s MLPs, without a
regulariser. Ours: that lr stays (theirs falls by 5% an epoch) and the number of epochs."""


@register_probe(
    "memorization",
    "whether the network could learn its data by heart: random labels, pixels, noise",
    finds=Memorization,
    options=MemorizationOptions,
)
def memorization(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 3,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[MemorizationKeywords],
) -> Memorization:
    """Train on true data and on noise until no training error is left.

    The experiments of Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep learning requires
    rethinking generalization" (2017), section 2, and the time to convergence of Arpit et al., "A
    closer look at memorization in deep networks" (2017), section 3.3.2. The training error is
    measured once an epoch, in eval mode and on the whole training set. Of each seed all networks
    start from the same weights and read their data in the same order; its noise is its own.

    >>> import torch, weightfold as wf
    >>> x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> from torch.nn import Linear, ReLU, Sequential
    >>> make = lambda seed: Sequential(Linear(6, 8), ReLU(), Linear(8, 2))
    >>> quick = wf.Recipe(epochs=8, lr=0.2, batch_size=20, crop_padding=0, flip=False)
    >>> data = (x[:60], y[:60]), (x[60:], y[60:])
    >>> conditions = ("true", "random-labels")
    >>> found = wf.memorization(
    ...     make, data, seeds=1, conditions=conditions, recipe=quick, progress=False
    ... )
    >>> found.headline.startswith("The network")
    True

    Args:
        net: A module, whose present weights all networks start from, or a function that makes the
            network of a seed; left unchanged.
        data: A classification task, or what `weightfold.data.as_dataset` takes.
        seeds: Of noise, order and, with a function, weights; a count n: 0 to n - 1.
        folder: Of the runs; a call that was stopped goes on from it. None: nothing is written.
        device: To train on; "auto": an accelerator if there is one.
        progress: Show a bar; or a function that is told how far the probe is.
        recipe: Of every network but variants with their own; epochs is when it is given up.
        **options: Fields of `MemorizationOptions`, or one as `options`.

    Returns:
        Times, accuracies and verdicts. Where zero training error was not reached, the epochs tried
        are given as a bound; a network whose loss became NaN or infinite is named in the notes and
        left out.

    Raises:
        TypeError: `net` is no model, `data` another task, or `options` has no such field.
        ValueError: An argument is out of range.
        NonFiniteLoss: No network came to its end.
        FileExistsError: The folder holds other runs.
    """
    check_arguments(memorization, folder=folder, progress=progress, recipe=recipe)
    chosen, seeds, device = (
        gathered(MemorizationOptions, options),
        as_seeds(seeds),
        device_of(device),
    )
    samples, radius = labelled(data, "it trains on random labels"), chosen.radius
    plan = _plan(chosen)
    first = net_of(net, seeds[0])
    check_network(first, as_task(samples), device)
    fits: list[Fit] = []
    notes: list[str] = []
    with progress_bar(progress, "memorization") as show:
        for index, line in enumerate(plan):

            def told(share: float, text: str, index: int = index) -> None:
                show(Progress(index + share, len(plan), text))

            variant = (chosen.variants or {}).get(line.variant, Variant())
            found, said = _train(
                line,
                net if variant.net is None else variant.net,
                samples,
                recipe if variant.recipe is None else variant.recipe,
                seeds,
                radius=radius,
                folder=None if folder is None else Path(folder) / "runs" / line.name,
                device=device,
                told=told,
            )
            fits += found
            notes += said
    if not fits:
        raise NonFiniteLoss(f"no network came to its end ({'; '.join(notes)}); {REMEDY}")
    size = sum(p.numel() for p in first.parameters())
    return Memorization(
        fits=tuple(fits),
        network=f"{type(first).__name__} ({size:,} weights)",
        data=f"{samples.name} ({len(samples.train):,} training examples)",
        chance=1 / samples.num_classes,
        epochs=recipe.epochs,
        radius=radius,
        notes=(_policy(recipe, radius), *notes),
        sessions=(session(device),),
    )


def _plan(options: MemorizationOptions) -> list[Line]:
    conditions, fractions, noise = options.conditions, options.fractions, options.noise
    lines: list[Line] = []
    for condition in dict.fromkeys((*conditions, *(noise if fractions else ()))):
        lines += [Line(condition, f) for f in sorted(fractions) if condition in noise]
        lines += [Line(condition)] if condition in conditions else []
    for name in options.variants or {}:
        lines += [Line(one, variant=name) for one in ("true", "random-labels")]
    return list(dict.fromkeys(lines))


def _train(
    line: Line,
    net: Model,
    samples: Dataset,
    recipe: Recipe,
    seeds: tuple[int, ...],
    *,
    radius: float | None,
    folder: Path | None,
    device: torch.device | str,
    told: Callable[[float, str], None],
) -> tuple[list[Fit], list[str]]:
    """The networks of a line, one for each seed; and what is to be said of them."""
    starts: dict[str, Run] = {}
    for seed in seeds:
        disturbed = disturb(samples, line.condition, fraction=line.fraction, seed=seed)
        starts[f"seed-{seed}"] = Run(net_of(net, seed), disturbed, seed)
    done = dict.fromkeys(starts, 0.0)
    longest = recipe.epochs * len(samples.train) / recipe.batch_size

    def shown(name: str, row: Row) -> None:
        done[name] = min(1.0, (row.step or 0) / longest)
        accuracy = f"training accuracy {row['train_eval_accuracy']:.1%}"
        told(sum(done.values()) / len(done), f"{line.title}, {name}: {accuracy}")

    runs = fit_together(
        starts,
        recipe,
        folder=folder,
        device=device,
        progress=shown,
        options=replace(SIDE_BY_SIDE, measure=("train", "test"), until=_fitted),
    )
    fits, notes = [], []
    for seed, (name, run) in zip(seeds, runs.items(), strict=True):
        if run.failed:
            notes.append(f"{line.title}, seed {seed}: left out, {run.failed}.")
            continue
        critical = None
        if radius is not None:
            told(sum(done.values()) / len(done), f"{line.title}, {name}: critical samples")
            critical = _critical(starts[name], radius, device)
        fits.append(_fit(line, seed, run, samples, as_task(starts[name].data).dataset, critical))
    missed = [
        as_task(starts[f"seed-{fit.seed}"].data).dataset.train
        for fit in fits
        if fit.zero_epoch is None
    ]
    wrong = [contradictions(train.inputs, train.targets) for train in missed]
    if any(wrong):
        notes.append(
            f"{line.title}: equal inputs have different labels, so that at least {min(wrong)} of "
            f"{len(samples.train)} examples stay wrong whatever is learnt."
        )
    told(1.0, line.title)
    return fits, notes


def _fitted(run: History) -> bool:
    return run.last(part="train_eval") == 1


def _critical(start: Run, radius: float, device: torch.device | str) -> float:
    samples = as_task(start.data).dataset.to(device)
    first = search(start.net, samples, samples.test.inputs, radius=radius, seed=start.seed)
    return (first > 0).double().mean().item()


def _fit(
    line: Line, seed: int, run: History, before: Dataset, after: Dataset, critical: float | None
) -> Fit:
    zero = next((row.step for row in run.rows if row["train_eval_accuracy"] == 1), None)
    per_epoch = run.steps_per_epoch or 1
    changed = (after.train.inputs != before.train.inputs).flatten(1).any(dim=1)
    return Fit(
        line=line,
        seed=seed,
        examples=len(after.train),
        labels_changed=int((after.train.targets != before.train.targets).sum()),
        inputs_changed=int(changed.sum()),
        zero_epoch=None if zero is None else zero / per_epoch,
        zero_step=zero,
        epochs=(run.rows[-1].step or 0) / per_epoch,
        train_accuracy=run.last(part="train_eval"),
        test_accuracy=run.last(),
        critical=critical,
        seconds=run.seconds,
        curve=tuple(
            ((row.step or 0) / per_epoch, row["train_eval_accuracy"], row["test_accuracy"])
            for row in run.rows
        ),
    )


def _policy(recipe: Recipe, radius: float | None) -> str:
    """What decides the numbers."""
    text = (
        f"Training error is measured after each epoch, in eval mode on the whole training set; a "
        f"network is trained until it is zero, at most {recipe.epochs} epochs ({recipe.optimizer}, "
        f"lr {recipe.lr:g}, {recipe.schedule} schedule, batches of {recipe.batch_size}). Random "
        "labels are drawn from all classes, their own included. Test inputs and labels are "
        "undisturbed, but for shuffled pixels."
    )
    if radius is None:
        return text
    return f"{text} Critical samples were searched in a box of radius {radius:g}."
