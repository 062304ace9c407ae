"""wf.relax: convolutional networks set free in their fully-connected space, after d'Ascoli 2019."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import nn

from weightfold.core.arguments import gathered
from weightfold.data import Dataset
from weightfold.data.pairs import Data
from weightfold.methods.embed.size import EmbeddingSize, amount, memory
from weightfold.methods.embed.verb import embed, embedding_size
from weightfold.probes.layers.splice import read_checkpoint
from weightfold.probes.layers.units import check_plain
from weightfold.probes.models import Model, check_network, labelled, net_of
from weightfold.probes.registry import register_probe
from weightfold.probes.relax.finding import Convolutional, Relaxation
from weightfold.probes.relax.measurements import accuracy
from weightfold.probes.relax.options import RelaxKeywords, RelaxOptions
from weightfold.probes.relax.runs import Protocol, Run, curve_of, run_seed
from weightfold.records import write_record
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.checkpoint import RUN
from weightfold.train.options import Options
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, session
from weightfold.train.seeding import as_seeds
from weightfold.train.single import fit
from weightfold.train.starts import Start
from weightfold.train.together import device_of

RECIPE = Recipe(
    epochs=150, batch_size=250, lr=0.1, momentum=0.0, schedule="constant", crop_padding=0,
    flip=False,
)  # fmt: skip
"""The paper's: SGD with nothing besides."""


@register_probe(
    "relax",
    "what a convolutional network gains when it is set free in its fully-connected space",
    finds=Relaxation,
    options=RelaxOptions,
)
def relax(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = RECIPE,
    **options: Unpack[RelaxKeywords],
) -> Relaxation:
    """Train a convolutional network, embed it at several times, and train on without constraints.

    d'Ascoli, Sagun, Bruna and Biroli 2019, section 4. Relax times follow one another, each updated
    in place, so that memory is the weights of one network and its activations.

    >>> import weightfold as wf
    >>> data = wf.data.load("digits,limit=100")
    >>> def make(seed): return wf.nets.build("digitnet", num_classes=10, in_channels=1)
    >>> recipe = wf.Recipe(epochs=1, batch_size=50, momentum=0, crop_padding=0, flip=False)
    >>> found = wf.relax(make, data, recipe=recipe, epochs=1, curvature=0, points=0, progress=False)
    >>> found.times, len(found.runs)
    ((0, 1), 3)

    Args:
        net: A module, or a function that makes the network of a seed; left unchanged.
        data: A classification task, or what `weightfold.data.as_dataset` takes.
        seeds: A count n standing for 0 to n - 1, or which.
        folder: Where a call that was stopped goes on from; None: nothing is kept.
        device: To train on; "auto": an accelerator if there is one.
        progress: As for `progress_bar`.
        recipe: Of the convolutional network; its batch size is that of all.
        **options: Fields of `RelaxOptions`, or one as `options`.

    Raises:
        TypeError: `net` or `data` is of no such kind, or `options` has no such field.
        ValueError: An argument is out of range, a layer cannot be embedded, or a snapshot is of
            another network.
        MemoryError: The larger space does not fit the device while training; what would fit.
        FileExistsError: The folder holds something else.
        NonFiniteLoss: The convolutional network's loss became NaN or infinite.
    """
    chosen, device = gathered(RelaxOptions, options), device_of(device)
    seeds = as_seeds(seeds) if chosen.snapshots is None else (0,)
    samples = labelled(data, "it is told by accuracy what a relaxed network has kept")
    first = net_of(net, seeds[0])
    check_plain(first, "net")
    check_network(first, as_task(samples), device)
    last = recipe.epochs if chosen.snapshots is None else max(chosen.snapshots, default=0)
    times = _relax_times(chosen, last)
    size = embedding_size(first, samples.shape, padding=chosen.padding)[chosen.space]
    _check_memory(size, chosen, recipe.batch_size, device)
    runs: list[Run] = []
    convolutional: list[Convolutional] = []
    with ExitStack() as stack:
        root = Path(
            stack.enter_context(tempfile.TemporaryDirectory()) if folder is None else folder
        )
        _mark(root, chosen, recipe)
        show = stack.enter_context(progress_bar(progress, Relaxation.probe))
        estimate = _estimate(first, samples, chosen, recipe, size, len(times), len(seeds), device)
        total = len(seeds) * (1 + len(times) + chosen.scratch)
        show(Progress(0, total, estimate))
        if progress is True:
            print(estimate)
        for place, seed in enumerate(seeds):
            there = root / f"seed{seed}"
            there.mkdir(parents=True, exist_ok=True)
            protocol = Protocol(samples.to(device), recipe, chosen, seed, str(device), there)
            begun = place * total // len(seeds)

            def hear(done: int, text: str, begun: int = begun, seed: int = seed) -> None:
                show(Progress(begun + 1 + done, total, f"seed {seed}, {text}"))

            cnn, sources, found = _convolutional(net, protocol, times)
            convolutional.append(found)
            runs += run_seed(protocol, cnn.to(device), times, sources, hear)
            show(Progress(begun + total // len(seeds), total, f"seed {seed}"))
    return Relaxation(
        network=f"{type(first).__name__} ({sum(p.numel() for p in first.parameters()):,} weights)",
        data=samples.name,
        weights=size.weights + size.others,
        space=chosen.space,
        rate=chosen.rate,
        lr=chosen.lr,
        optimizer=chosen.optimizer,
        lasso=chosen.lasso,
        epochs=chosen.epochs,
        seeds=tuple(seeds),
        times=times,
        convolutional=tuple(convolutional),
        runs=tuple(runs),
        recipe=asdict(recipe) if chosen.snapshots is None else None,
        notes=_notes(chosen, estimate, runs),
        sessions=(session(device),),
    )


def _relax_times(chosen: RelaxOptions, last: int) -> tuple[int, ...]:
    if chosen.snapshots is None:
        return chosen.relax_times(last)
    if not chosen.snapshots:
        raise ValueError("snapshots is empty; give epoch -> weights, the trained ones last")
    return tuple(sorted(chosen.snapshots))


def _check_memory(
    size: EmbeddingSize, chosen: RelaxOptions, batch: int, device: torch.device
) -> None:
    states, there = (3 if chosen.optimizer == "adamw" else 1), memory(device)
    in_place = chosen.optimizer == "sgd" and not chosen.lasso
    needed = size.training(batch, states, in_place=in_place)
    if there is not None and needed > there:
        raise MemoryError(
            f"space={chosen.space!r} with optimizer={chosen.optimizer!r} takes {amount(needed)} "
            f"while training, of {amount(there)} there are. {size}. Fewer channels, smaller "
            "images, space='local' or optimizer='sgd' take less"
        )


def _mark(root: Path, chosen: RelaxOptions, recipe: Recipe) -> None:
    """Note what the folder's runs are, and refuse those of other options."""
    about = {k: v for k, v in asdict(chosen).items() if k not in ("snapshots", "times", "relax_at")}
    about = json.loads(json.dumps({"relax": about, "recipe": asdict(recipe)}))
    folder = root / "runs"
    if not check_same(about, folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder / RUN, {"configuration": about})


def _convolutional(
    net: Model, protocol: Protocol, times: tuple[int, ...]
) -> tuple[nn.Module, Mapping[int, Start], Convolutional]:
    """The trained network, its weights at the relax times, and its curve."""
    cnn, snapshots, seed = net_of(net, protocol.seed), protocol.options.snapshots, protocol.seed
    if snapshots is not None:
        tensors = {e: read_checkpoint(snapshots[e], cnn, f"snapshots[{e}]") for e in times}
        cnn.load_state_dict(tensors[times[-1]], strict=False)
        right = accuracy(cnn.to(protocol.device), protocol.samples)
        return (
            cnn,
            {e: Start(t, through="embed") for e, t in tensors.items()},
            Convolutional(seed, (), right),
        )
    steps = {epoch: epoch * protocol.steps_per_epoch for epoch in times}
    folder = protocol.folder / "cnn"
    options = Options(at_start=True, measure=("test",), save_at=tuple(steps.values()))
    history = fit(
        cnn, protocol.samples, protocol.recipe, seed=seed, folder=folder,
        device=protocol.device, progress=False, options=options,
    )  # fmt: skip
    starts = {e: Start(folder, at=step, through="embed") for e, step in steps.items()}
    return cnn, starts, Convolutional(seed, curve_of(history), history.last_value)


def _estimate(
    net: nn.Module, samples: Dataset, chosen: RelaxOptions, recipe: Recipe, size: EmbeddingSize,
    times: int, seeds: int, device: torch.device,
) -> str:  # fmt: skip
    """What time and memory it will take, from one step that was measured."""
    batch = min(recipe.batch_size, len(samples.train))
    few = samples.train.select(torch.arange(batch))
    x, y = samples.normalize(few.inputs).to(device), few.targets.to(device)
    big = embed(net.to(device), samples.shape, chosen.space, padding=chosen.padding)
    seconds = min(_timed(big, x, y) for _ in range(2))
    del big
    net.cpu()
    steps = chosen.epochs * max(1, len(samples.train) // recipe.batch_size)
    runs = seeds * (times + chosen.scratch)
    states = 3 if chosen.optimizer == "adamw" else 1
    in_place = chosen.optimizer == "sgd" and not chosen.lasso
    return (
        f"Estimate: {runs} runs of {steps:,} steps at {1000 * seconds:.3g} ms (measured), "
        f"about {runs * steps * seconds / 60:.3g} minutes, beside the convolutional network; "
        f"{amount(size.training(batch, states, in_place=in_place))} of memory. {size}."
    )


def _timed(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    begin = perf_counter()
    F.cross_entropy(net(x), y).backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    net.zero_grad()
    return perf_counter() - begin


def _notes(chosen: RelaxOptions, estimate: str, runs: Sequence[Run]) -> tuple[str, ...]:
    notes = [estimate]
    if chosen.curvature:
        notes.append(
            f"Loss, gradient norm and top eigenvalue are of the first {chosen.curvature:,} "
            "training examples, in eval mode; the eigenvalue by Lanczos, its residual beside it."
        )
    if chosen.rate == "fair":
        notes.append(
            "Rates are those at which plain SGD moves, on the convolutional subspace, as the "
            f"convolutional network would at {chosen.lr:g}: a factor for each layer."
        )
    if chosen.lasso:
        notes.append(f"beta-lasso, beta 50, lambda {chosen.lasso:g}, in every run of the space.")
    for run in runs:
        if run.failed:
            at = "from scratch" if run.relaxed_at is None else f"relaxed at {run.relaxed_at}"
            notes.append(f"Seed {run.seed}, {at}: {run.failed}")
    return tuple(notes)
