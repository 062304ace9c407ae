"""`wf.lottery_ticket`: does a part of the network, trained alone from its start, learn as well?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import torch
from torch import nn

from weightfold.core.arguments import device_of, gathered
from weightfold.core.charted import Charted
from weightfold.data import hold_out
from weightfold.data.pairs import Data
from weightfold.hints import check_arguments
from weightfold.probes.models import Model, check_network, fresh, net_of
from weightfold.probes.registry import register_probe
from weightfold.probes.tickets.experiment import Experiment
from weightfold.probes.tickets.finding import LotteryTicket
from weightfold.probes.tickets.options import TicketKeywords, TicketOptions
from weightfold.probes.tickets.outcomes import FEWEST, TITLES, Outcomes
from weightfold.probes.tickets.prune import Pruning, own_shares, prunable
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds

RECIPE = Recipe(
    epochs=10,
    batch_size=60,
    optimizer="adamw",
    lr=1.2e-3,
    schedule="constant",
    crop_padding=0,
    flip=False,
)
"""Of LeNet in Frankle and Carbin 2019: Adam without decay; the number of epochs is ours."""


@register_probe(
    "lottery-ticket",
    "how many weights can be pruned, and whether those left learn faster from their start",
    finds=LotteryTicket,
    options=TicketOptions,
)
def lottery_ticket(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 5,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[TicketKeywords],
) -> LotteryTicket:
    """Find winning tickets and compare them with the full network and with two controls.

    Frankle and Carbin 2019: train, prune the smallest weights, set the survivors back to what they
    started from, train again. At each level, beside the ticket of each trial: its mask with weights
    drawn anew, and its start weights under a mask of as many survivors in each tensor at random
    places. Early stopping is at the lowest validation loss.

    >>> import torch, weightfold as wf
    >>> x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> from torch.nn import Linear, ReLU, Sequential
    >>> make = lambda seed: Sequential(Linear(6, 8), ReLU(), Linear(8, 2))
    >>> quick = wf.Recipe(epochs=8, lr=0.2, batch_size=20, crop_padding=0, flip=False)
    >>> data = (x[:60], y[:60]), (x[60:], y[60:])
    >>> found = wf.lottery_ticket(make, data, seeds=2, rounds=1, recipe=quick, progress=False)
    >>> found.results.levels
    [1]

    Args:
        net: A module, whose present weights all trials start from (they then differ in the order
            of the data alone), or a function that makes the network of a seed; left unchanged.
        data: A task; data alone, as `weightfold.data.as_dataset` takes it, is to be classified.
        seeds: One a trial, of its weights and the order of its data; a count n: 0 to n - 1.
        folder: Gets runs/, from which a call that was stopped goes on, and at the end masks/, see
            `LotteryTicket.save_masks`. None: nothing is written.
        device: To train on; "auto": an accelerator if there is one.
        progress: Show a bar; or a function that is told how far the probe is.
        recipe: Of every network.
        **options: Fields of `TicketOptions`, or one as `options`.

    Returns:
        Masks, curves and comparisons. A network whose loss became NaN or infinite is named in the
        notes and left out; with method="iterative" its trial ends there if it is a ticket.

    Raises:
        TypeError: `net` is a Charted net or no model, only the model knows the task's loss, or
            `options` has no such field.
        ValueError: An argument is out of range, nothing can be pruned, what is pruned gets no
            gradient, or a layer's weights cannot be drawn anew.
        NonFiniteLoss: No full network was trained to the end.
        FileExistsError: The folder holds other runs.
    """
    check_arguments(lottery_ticket, folder=folder, progress=progress, recipe=recipe)
    chosen, seeds, device = gathered(TicketOptions, options), as_seeds(seeds), device_of(device)
    task = _with_validation(as_task(data), chosen.validation)
    chosen = _settled(chosen, len(seeds), len(task.dataset.train), recipe)
    first = net_of(net, seeds[0])
    if isinstance(first, Charted):
        raise TypeError("net is a Charted net; give the plain network, e.g. net.deploy()")
    weights = prunable(first, chosen.where)
    own = own_shares(weights, chosen.fractions)
    check_network(first, task, device, gradients=weights)
    fresh(net, seeds[0])  # before anything is trained: refuses what cannot be drawn anew
    with progress_bar(progress, "lottery ticket") as show:
        experiment = Experiment(
            net=net,
            task=task,
            options=chosen,
            pruning=Pruning(chosen.fraction, chosen.method, chosen.scope, own),
            names=tuple(weights),
            recipe=recipe,
            seeds=seeds,
            folder=None if folder is None else Path(folder) / "runs",
            device=device,
            show=show,
        )
        experiment.run()
    finding = LotteryTicket(
        outcomes=tuple(experiment.outcomes),
        trials=len(seeds),
        weights=sum(w.numel() for w in weights.values()),
        chance=task.baseline(),
        measure=task.measure,
        masks=experiment.masks,
        starts={seed: start.state_dict() for seed, start in experiment.starts.items()},
        notes=tuple(_notes(experiment)),
        sessions=(session(device),),
    )
    if folder is not None and finding.masks:
        finding.save_masks(Path(folder) / "masks")
    return finding


def _settled(options: TicketOptions, trials: int, examples: int, recipe: Recipe) -> TicketOptions:
    """The options with `random_trials` as a number.

    Raises:
        ValueError: `random_trials` or `rewind` does not fit the trials or the steps.
    """
    random_trials = trials if options.random_trials is None else options.random_trials
    if random_trials < trials:
        raise ValueError(
            f"random_trials={random_trials}: give at least one for each of {trials} seeds"
        )
    whole = max(1, examples // recipe.batch_size)
    longest = recipe.epochs * whole if options.steps is None else options.steps
    if options.rewind >= longest:
        raise ValueError(f"rewind={options.rewind}: give 0 or less than the {longest} steps")
    return replace(options, random_trials=random_trials)


def _with_validation(task: Task, validation: float | None) -> Task:
    """The task with a validation set.

    Raises:
        TypeError: Its loss, by which training is stopped, is not known of a validation set.
        ValueError: `validation` does not fit the data.
    """
    if task.model_computes_loss:
        raise TypeError(
            f"data is the task {task.name!r}, whose loss only the model knows, in training; this "
            "probe takes a task with a loss of its own, for it stops at the lowest validation loss"
        )
    samples = task.dataset
    if samples.validation is not None:
        if validation is not None:
            raise ValueError(
                f"validation={validation}: the data has a validation set of its own, which is used;"
                " leave it out"
            )
        return task
    size = len(samples.train)
    count = 0.1 if validation is None else validation
    if count != int(count) and count > 1:
        raise ValueError(f"validation={count}: give a share below 1 or a whole number of examples")
    held_out = round(count * size) if 0 < count < 1 else int(count)
    return replace(task, dataset=hold_out(samples, held_out, seed=0))


def _notes(experiment: Experiment) -> list[str]:
    """What decides the numbers, and what was left out."""
    pruning, recipe, samples = experiment.pruning, experiment.recipe, experiment.task.dataset
    assert samples.validation is not None
    own = "".join(f", {100 * f:g}% of {name}" for name, f in pruning.fractions.items())
    each = "each tensor's" if pruning.scope == "layer" else "all tensors'"
    notes = [
        f"{pruning.method.capitalize()} magnitude pruning of {100 * pruning.fraction:g}% of {each} "
        f"surviving weights a level{own}; biases and batch norms are kept. Data {samples.name}: "
        f"{len(samples.train)} examples trained on, {len(samples.validation)} for early stopping, "
        f"{len(samples.test)} tested; {recipe.optimizer} at {recipe.lr:g}, batches of "
        f"{recipe.batch_size}, measured every {experiment.options.every} steps.",
        f"A comparison holds where the 95% Student interval over at least {FEWEST} trials lies "
        "wholly on its side; each is judged by itself: of forty between equals about one would.",
    ]
    if isinstance(experiment.net, nn.Module):
        notes.append(
            "All trials start from the module's weights and differ in data order alone. The "
            "re-initialised weights are those of each layer's reset_parameters(), whatever the "
            "module itself began with."
        )
    if experiment.options.rewind:
        notes.append(
            f"Survivors, and the weights under random masks, are set back to step "
            f"{experiment.options.rewind}; their iterations count these steps."
        )
    late = Outcomes(experiment.outcomes).unstopped()
    if late:
        counts = ", ".join(f"{n} of {m} ({TITLES[kind]})" for kind, (n, m) in late.items())
        notes.append(
            f"Validation loss was still lowest at the last measurement in {counts}: there the "
            "early-stopping iteration is a lower bound, and more steps are needed."
        )
    if experiment.failures:
        notes.append(f"Left out: {'; '.join(experiment.failures)}.")
    return notes
