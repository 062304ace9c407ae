"""wf.confusion: how much the gradients of mini-batches disagree."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor, nn

from weightfold.core.arguments import gathered
from weightfold.core.charted import Charted
from weightfold.data.pairs import Data
from weightfold.probes.confusion.finding import Confusion, Gradients
from weightfold.probes.confusion.options import ConfusionKeywords, ConfusionOptions
from weightfold.probes.layers.networks import Network, trained_networks
from weightfold.probes.models import Model, net_of
from weightfold.probes.objective import Coordinates, Objective, grads
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds, mixed_seed
from weightfold.train.together import device_of

RECIPE = Recipe(epochs=12)


@register_probe(
    "confusion",
    "how much the gradients of mini-batches disagree at the end of each epoch",
    finds=Confusion,
    options=ConfusionOptions,
)
def confusion(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[ConfusionKeywords],
) -> Confusion:
    """Train, and compare the gradients of pairs of mini-batches at the end of each epoch.

    >>> import weightfold as wf
    >>> net = wf.nets.build("mlp,depth=1,width=4,size=8", num_classes=10, in_channels=1)
    >>> data = wf.data.load("digits,limit=64")
    >>> recipe = wf.Recipe(epochs=1, batch_size=32, lr=0.01, crop_padding=0, flip=False)
    >>> found = wf.confusion(net, data, recipe=recipe, batches=4, pairs=3, progress=False)
    >>> [len(run.minimum["theta"]) for run in found.runs]  # a value an epoch
    [1]

    Mini-batches are of the training set without augmentation, batch norm takes their own
    statistics, and dropout is off (all three are ours: the paper does not say). A pair is of two
    different mini-batches, all parameters in one vector. Of a Charted net gradients are taken by
    what is trained (factor space), and by the deployed weights (folded space).

    Args:
        net: A module, or a function that makes the network of a seed; left unchanged.
        data: A task; data alone is to be classified.
        seeds: Of the networks.
        folder: Where trainings go on from; None: nothing is written.
        device: To train on; "auto": an accelerator if there is one.
        progress: As for `progress_bar`.
        recipe: How to train.
        **options: Fields of `ConfusionOptions`, or one as `options`.

    Raises:
        TypeError: `net` is of no such kind, or there is no such option.
        ValueError: An argument is out of range, or there are fewer than two mini-batches.
        NonFiniteLoss: No network could be trained.
    """
    chosen, task = gathered(ConfusionOptions, options), as_task(data)
    device, seeds = device_of(device), as_seeds(seeds)
    task.check(first := net_of(net, seeds[0]))
    batch = chosen.batch_size or recipe.batch_size
    if len(task.dataset.train) < 2 * batch:
        raise ValueError(
            f"batch_size={batch}: the {len(task.dataset.train)} training examples give no two "
            "mini-batches"
        )
    spaces: tuple[Coordinates, ...] = ("theta", "psi") if isinstance(first, Charted) else ("theta",)
    total = len(seeds) * recipe.epochs
    with progress_bar(progress, Confusion.probe) as show:
        networks, failed = trained_networks(
            net,
            task,
            recipe,
            seeds,
            tuple(range(1, recipe.epochs + 1)),
            folder=None if folder is None else Path(folder) / "runs",
            device=device,
            hear=lambda epochs: show(Progress(epochs, 2 * total, "training")),
        )
        runs = []
        for place, network in enumerate(networks):
            show(Progress(total + place * recipe.epochs, 2 * total, f"seed {network.seed}"))
            runs.append(_measured(network, task, spaces, chosen, batch))
    return Confusion(
        network=f"{type(first).__name__} ({sum(p.numel() for p in first.parameters()):,} weights)",
        data=task.dataset.name,
        pairs=chosen.pairs,
        batch=batch,
        spaces=spaces,
        runs=tuple(runs),
        recipe=asdict(recipe),
        notes=failed,
        sessions=(session(device),),
    )


def _measured(
    network: Network,
    task: Task,
    spaces: tuple[Coordinates, ...],
    chosen: ConfusionOptions,
    batch: int,
) -> Gradients:
    net = network.net.eval()
    minimum: dict[str, list[float]] = {space: [] for space in spaces}
    last: dict[str, list[float]] = {}
    for epoch, state in network.past.items():
        net.load_state_dict(state)
        for space in spaces:
            last[space] = cosines(net, task, space, chosen, batch, (network.seed, epoch))
            minimum[space].append(min(last[space]))
    assert network.history is not None
    rows, name = [row for row in network.history.rows if row.epoch], task.measure.name
    return Gradients(
        network.seed,
        tuple(100 * (1 - (row.get(f"train_{name}") or 0)) for row in rows),
        tuple(100 * (1 - (row.get(f"test_{name}") or 0)) for row in rows),
        {space: tuple(values) for space, values in minimum.items()},
        {space: tuple(values) for space, values in last.items()},
    )


def cosines(
    net: nn.Module,
    task: Task,
    space: Coordinates,
    chosen: ConfusionOptions,
    batch: int,
    seed: tuple[int, ...],
) -> list[float]:
    """The cosines of random pairs of mini-batches' gradients, where the network is."""
    examples = len(task.dataset.train) // batch * batch
    objective = Objective(
        net,
        task,
        coordinates=space,
        bn="batch",
        examples=min(examples, chosen.batches * batch),
        batch_size=batch,
    )
    leaves = {name: t.clone().requires_grad_() for name, t in objective.start.items()}
    found: list[Tensor] = []
    for one in objective.batches():
        loss = objective.terms(leaves, one.inputs, one.targets).losses.mean()
        gradient = grads(loss, list(leaves.values()))
        found.append(gradient / gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny))
    stacked = torch.stack(found)
    products = (stacked @ stacked.T).double().cpu()
    generator = torch.Generator().manual_seed(mixed_seed("pairs", *seed))
    first = torch.randint(0, len(found), (chosen.pairs,), generator=generator)
    beside = torch.randint(1, len(found), (chosen.pairs,), generator=generator)
    return products[first, (first + beside) % len(found)].tolist()
