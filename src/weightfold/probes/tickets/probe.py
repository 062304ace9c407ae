"""`wf.lottery_ticket`: does a part of the network, trained alone from its start, learn as well?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from weightfold.core.charted import Charted
from weightfold.core.select import Where
from weightfold.data import Dataset, hold_out
from weightfold.data.pairs import Data, as_dataset
from weightfold.probes.models import Model, check_network, fresh, net_of
from weightfold.probes.registry import register_probe
from weightfold.probes.tickets.experiment import Experiment
from weightfold.probes.tickets.finding import LotteryTicket
from weightfold.probes.tickets.outcomes import FEWEST, TITLES, Outcomes
from weightfold.probes.tickets.prune import Method, Pruning, Scope, own_shares, prunable
from weightfold.train.progress import ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.together import Together

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
)
def lottery_ticket(
    model: Model,
    data: Data,
    *,
    rounds: int = 7,
    fraction: float = 0.2,
    method: Method = "iterative",
    scope: Scope = "layer",
    fractions: Mapping[str, float] | Sequence[str] = (),
    where: Where = None,
    rewind: int = 0,
    random_trials: int | None = None,
    seeds: Sequence[int] = range(5),
    recipe: Recipe = RECIPE,
    steps: int | None = None,
    every: int = 100,
    validation: float | None = None,
    folder: Path | str | None = None,
    device: torch.device | str = "cpu",
    together: Together = "auto",
    progress: bool | ProgressCallback = True,
) -> LotteryTicket:
    """Find winning tickets and compare them with the full network and with two controls.

    Frankle and Carbin 2019: train, prune the smallest weights, set the survivors back to what they
    started from, train again. At each level, beside the ticket of each trial: its mask with weights
    drawn anew, and its start weights under a mask of as many survivors in each tensor at random
    places. Early stopping is at the lowest validation loss.

    Args:
        model: A module, whose present weights all trials start from (they then differ in the order
            of the data alone), or a function that makes the network of a seed; left unchanged.
        data: Inputs and labels, see `weightfold.data.as_dataset`.
        rounds: Levels of pruning, at least 1.
        fraction: Share of the surviving weights that a level prunes, in (0, 1).
        method: "iterative": each level prunes the ticket of the last, trained; "one-shot": each
            prunes the trained full network, down to the same share in one go.
        scope: "layer": that share of each tensor; "global": of all tensors jointly.
        fractions: Name or glob of tensors -> their own share in place of `fraction`, the last that
            matches counts; or texts "fc3.weight:0.1". With scope="layer".
        where: Tensors to prune; None: weights of Linear layers and convolutions.
        rewind: Optimizer steps of the full network after which its weights are what survivors are
            set back to, a multiple of `every`; 0: the initial weights. The schedule of the learning
            rate and the order of the data begin anew there.
        random_trials: Networks with random masks at each level, at least as many as seeds, dealt
            out to the trials in turn; None: one for each.
        seeds: One a trial, of its weights and the order of its data.
        recipe: Of every network.
        steps: Optimizer steps of each network, `rewind` included; None: recipe.epochs epochs.
        every: Steps between measurements.
        validation: Training examples to set aside for early stopping, a count or a share below 1;
            None: the data's own validation set, else a tenth.
        folder: Gets runs/, from which a call that was stopped goes on, and at the end masks/, see
            `LotteryTicket.save_masks`. None: nothing is written.
        device: To train on.
        together: As of `fit_together`, which trains all networks of a level.
        progress: Show a bar; or a function that is told how far the probe is.

    Returns:
        Masks, curves and comparisons. A network whose loss became NaN or infinite is named in the
        notes and left out; with method="iterative" its trial ends there if it is a ticket.

    Raises:
        TypeError: `model` is a Charted net, or no model.
        ValueError: An argument is out of range, nothing can be pruned, what is pruned gets no
            gradient, or a layer's weights cannot be drawn anew.
        NonFiniteLoss: No full network was trained to the end.
        FileExistsError: The folder holds other runs.
    """
    samples = _with_validation(as_dataset(data), validation)
    trials = len(seeds)
    random_trials = trials if random_trials is None else random_trials
    for name, value in {"rounds": rounds, "every": every, "steps": steps}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: give at least 1")
    if trials < 1 or len(set(seeds)) < trials:
        raise ValueError(f"seeds={list(seeds)}: give at least one, each once")
    if random_trials < trials:
        raise ValueError(
            f"random_trials={random_trials}: give at least one for each of {trials} seeds"
        )
    whole = max(1, len(samples.train) // recipe.batch_size)
    longest = recipe.epochs * whole if steps is None else steps
    if not 0 <= rewind < longest or rewind % every:
        raise ValueError(
            f"rewind={rewind}: give 0 or a multiple of every={every} below the {longest} steps"
        )
    net = net_of(model, seeds[0])
    if isinstance(net, Charted):
        raise TypeError("model is a Charted net; give the plain network, e.g. net.deploy()")
    weights = prunable(net, where)
    pruning = Pruning(fraction, method, scope, own_shares(weights, fractions))
    check_network(net, samples, device, gradients=weights)
    fresh(model, seeds[0])  # before anything is trained: refuses what cannot be drawn anew
    with progress_bar(progress, "lottery ticket") as show:
        experiment = Experiment(
            model=model,
            samples=samples,
            pruning=pruning,
            names=tuple(weights),
            recipe=recipe,
            steps=steps,
            every=every,
            rewind=rewind,
            random_trials=random_trials,
            folder=None if folder is None else Path(folder) / "runs",
            device=device,
            together=together,
            show=show,
            networks=trials + rounds * (2 * trials + random_trials),
        )
        experiment.full(seeds)
        for level in range(1, rounds + 1):
            if not experiment.level(level):
                break
    finding = LotteryTicket(
        outcomes=tuple(experiment.outcomes),
        trials=trials,
        weights=sum(w.numel() for w in weights.values()),
        masks=experiment.masks,
        starts={seed: net.state_dict() for seed, net in experiment.starts.items()},
        notes=tuple(_notes(experiment, model)),
        sessions=(session(device),),
    )
    if folder is not None and finding.masks:
        finding.save_masks(Path(folder) / "masks")
    return finding


def _with_validation(samples: Dataset, validation: float | None) -> Dataset:
    if samples.validation is not None:
        if validation is not None:
            raise ValueError(
                f"validation={validation}: the data has a validation set of its own, which is used;"
                " leave it out"
            )
        return samples
    size = len(samples.train)
    count = 0.1 if validation is None else validation
    if count != int(count) and count > 1:
        raise ValueError(f"validation={count}: give a share below 1 or a whole number of examples")
    return hold_out(samples, round(count * size) if 0 < count < 1 else int(count), seed=0)


def _notes(experiment: Experiment, model: Model) -> list[str]:
    """What decides the numbers, and what was left out."""
    pruning, recipe, samples = experiment.pruning, experiment.recipe, experiment.samples
    assert samples.validation is not None
    own = "".join(f", {100 * f:g}% of {name}" for name, f in pruning.fractions.items())
    each = "each tensor's" if pruning.scope == "layer" else "all tensors'"
    notes = [
        f"{pruning.method.capitalize()} magnitude pruning of {100 * pruning.fraction:g}% of {each} "
        f"surviving weights a level{own}; biases and batch norms are kept. Data {samples.name}: "
        f"{len(samples.train)} examples trained on, {len(samples.validation)} for early stopping, "
        f"{len(samples.test)} tested; {recipe.optimizer} at {recipe.lr:g}, batches of "
        f"{recipe.batch_size}, measured every {experiment.every} steps.",
        f"A comparison holds where the 95% Student interval over at least {FEWEST} trials lies "
        "wholly on its side; each is judged by itself: of forty between equals about one would.",
    ]
    if isinstance(model, nn.Module):
        notes.append(
            "All trials start from the module's weights and differ in data order alone. The "
            "re-initialised weights are those of each layer's reset_parameters(), whatever the "
            "module itself began with."
        )
    if experiment.rewind:
        notes.append(
            f"Survivors, and the weights under random masks, are set back to step "
            f"{experiment.rewind}; their iterations count these steps."
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
