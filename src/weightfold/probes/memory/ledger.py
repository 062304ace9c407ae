"""`wf.example_ledger`: which examples are learnt when, over epochs and seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import torch

from weightfold.core.arguments import device_of, gathered
from weightfold.data import Dataset
from weightfold.data.disturb import IN_PART, disturb
from weightfold.data.pairs import Data
from weightfold.hints import check_arguments
from weightfold.probes.memory.correctness import Correctness
from weightfold.probes.memory.ledger_finding import ExampleLedger
from weightfold.probes.memory.options import LedgerKeywords, LedgerOptions
from weightfold.probes.models import Model, check_network, fresh, labelled
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.callbacks import Callback
from weightfold.train.context import Context
from weightfold.train.history import Row
from weightfold.train.loop import REMEDY, NonFiniteLoss
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds
from weightfold.train.together import SIDE_BY_SIDE, Run, Together, fit_together

RECIPE = Recipe(epochs=20, lr=0.01, schedule="constant", crop_padding=0, flip=False)
"""Momentum SGD; the learning rate of Arpit et al., the rest is ours."""


@register_probe(
    "example-ledger",
    "which examples are learnt early, late, never, or forgotten, over epochs and seeds",
    finds=ExampleLedger,
    options=LedgerOptions,
)
def example_ledger(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 10,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[LedgerKeywords],
) -> ExampleLedger:
    """Train from several initial weights and note after each epoch which examples are right.

    Arpit et al., "A closer look at memorization in deep networks" (2017), section 3.1, who look
    after one epoch of 100 runs. All runs of a condition see the same data; weights and order of the
    data differ.

    >>> import torch, weightfold as wf
    >>> x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> from torch.nn import Linear, ReLU, Sequential
    >>> make = lambda seed: Sequential(Linear(6, 8), ReLU(), Linear(8, 2))
    >>> quick = wf.Recipe(epochs=8, lr=0.2, batch_size=20, crop_padding=0, flip=False)
    >>> data = (x[:60], y[:60]), (x[60:], y[60:])
    >>> found = wf.example_ledger(make, data, seeds=2, recipe=quick, progress=False)
    >>> found.headline.startswith("Right after the first epoch")
    True

    Args:
        net: A module, of which copies with weights drawn anew are trained, or a function that
            makes the network of a seed; left unchanged.
        data: A classification task, or what `weightfold.data.as_dataset` takes; its training set
            is what the ledger is of.
        seeds: Of the runs; a count n: 0 to n - 1.
        folder: Of the runs; a call that was stopped goes on from it. None: nothing is written.
        device: To train on; "auto": an accelerator if there is one.
        progress: Show a bar; or a function that is told how far the probe is.
        recipe: Of every network.
        **options: Fields of `LedgerOptions`, or one as `options`.

    Returns:
        The ledger; `save` writes it example by example. A run whose loss became NaN or infinite is
        named in the notes and left out.

    Raises:
        TypeError: `net` is no model, `data` another task, or `options` has no such field.
        ValueError: An argument is out of range, or a layer's weights cannot be drawn anew.
        NonFiniteLoss: No run of a condition came to its end.
        FileExistsError: The folder holds other runs.
    """
    check_arguments(example_ledger, folder=folder, progress=progress, recipe=recipe)
    chosen, seeds, device = gathered(LedgerOptions, options), as_seeds(seeds), device_of(device)
    samples = labelled(data, "it counts the examples whose class is told right")
    conditions, fraction = chosen.conditions, chosen.fraction
    disturbed = {
        condition: disturb(
            samples,
            condition,
            fraction=fraction if condition in IN_PART else 1.0,
            seed=chosen.noise_seed,
        )
        for condition in conditions
    }
    first = fresh(net, seeds[0])
    check_network(first, as_task(samples), device)
    correctness: dict[str, Correctness] = {}
    notes: list[str] = []
    with progress_bar(progress, "example ledger") as show:
        for index, (condition, now) in enumerate(disturbed.items()):

            def told(share: float, text: str, index: int = index) -> None:
                show(Progress(index + share, len(disturbed), text))

            starts = {f"seed-{s}": Run(fresh(net, s), now, s) for s in seeds}
            runs = None if folder is None else Path(folder) / "runs" / condition
            right, failed = _trained(starts, recipe, runs, device, chosen.together, told)
            notes += [f"{condition}, {name}: left out, {why}." for name, why in failed.items()]
            ended = [i for i, seed in enumerate(seeds) if f"seed-{seed}" not in failed]
            if not ended:
                raise NonFiniteLoss(f"no run came to its end ({'; '.join(notes)}); {REMEDY}")
            correctness[condition] = _correctness(
                condition, tuple(seeds[i] for i in ended), right[ended], samples, now
            )
            told(1.0, condition)
    size = sum(p.numel() for p in first.parameters())
    return ExampleLedger(
        totals=tuple(each.totals() for each in correctness.values()),
        network=f"{type(first).__name__} ({size:,} weights)",
        data=f"{samples.name} ({len(samples.train):,} training examples)",
        correctness=correctness,
        notes=(_policy(recipe, fraction, conditions), *notes),
        sessions=(session(device),),
    )


class _RecordCorrectness(Callback):
    """Keeps, for each epoch, the examples of all runs that are right, as bits."""

    def on_measure(self, context: Context) -> None:
        right = [(logits.argmax(2) == y).cpu() for logits, y in context.outputs("train")]
        bits = np.packbits(torch.cat(right, dim=1).numpy(), axis=1)
        self.state[str(context.epoch)] = torch.from_numpy(bits)


def _trained(
    starts: dict[str, Run],
    recipe: Recipe,
    folder: Path | None,
    device: torch.device | str,
    together: Together,
    told: Callable[[float, str], None],
) -> tuple[np.ndarray, dict[str, str]]:
    """Right, bool (runs, epochs + 1, examples); and run -> why it failed."""
    recorders: list[_RecordCorrectness] = []

    def recorder() -> _RecordCorrectness:
        recorders.append(_RecordCorrectness())
        return recorders[-1]

    examples = len(as_task(next(iter(starts.values())).data).dataset.train)
    done = dict.fromkeys(starts, 0.0)
    longest = recipe.epochs * examples / recipe.batch_size

    def shown(name: str, row: Row) -> None:
        done[name] = min(1.0, (row.step or 0) / longest)
        told(sum(done.values()) / len(done), f"{name}, {row.step} steps")

    runs = fit_together(
        starts,
        recipe,
        folder=folder,
        together=together,
        device=device,
        progress=shown,
        options=replace(SIDE_BY_SIDE, measure=(), callbacks=(recorder,)),
    )
    groups = []
    for one in recorders:
        epochs = [one.state[key].cpu().numpy() for key in sorted(one.state, key=int)]
        # A group all of whose runs failed has not come to the last epoch.
        epochs += [np.zeros_like(epochs[0])] * (recipe.epochs + 1 - len(epochs))
        bits = np.stack(epochs, axis=1)
        groups.append(np.unpackbits(bits, axis=2, count=examples).astype(bool))
    failed = {name: run.failed for name, run in runs.items() if run.failed}
    return np.concatenate(groups), failed


def _correctness(
    condition: str, seeds: tuple[int, ...], right: np.ndarray, before: Dataset, now: Dataset
) -> Correctness:
    inputs = (now.train.inputs != before.train.inputs).flatten(1).any(dim=1)
    return Correctness(
        condition=condition,
        seeds=seeds,
        right=right,
        labels=now.train.targets.cpu().numpy(),
        labels_changed=(now.train.targets != before.train.targets).cpu().numpy(),
        inputs_changed=inputs.cpu().numpy(),
    )


def _policy(recipe: Recipe, fraction: float, conditions: Sequence[str]) -> str:
    """What decides the numbers."""
    part = [c.replace("-", " ") for c in conditions if c in IN_PART]
    share = f" {100 * fraction:g}% of the set has {', '.join(part)}." if part else ""
    return (
        "After each epoch, in eval mode; an example is right if it is classified as it is labelled "
        f"in training. {recipe.epochs} epochs ({recipe.optimizer}, lr {recipe.lr:g}, "
        f"{recipe.schedule} schedule, batches of {recipe.batch_size}).{share} Drawn labels may be "
        "the true ones."
    )
