"""Several seeds of one small network, trained as one vmapped batch."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from weightfold.data import Batches, Dataset
from weightfold.files import locked
from weightfold.train import checkpoint
from weightfold.train.feed import evaluation_batches, set_aside, training_batches
from weightfold.train.history import SELECTIONS, History, Row
from weightfold.train.logs import watching
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, describe, describe_data, write_run
from weightfold.train.steps import REMEDY, NonFiniteLoss
from weightfold.train.strategies.stack import Stack, Tensors


def fit_seeds(
    make_net: Callable[[int], nn.Module],
    dataset: Dataset,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    folder: Path | str,
    validation: int | float = 0,
    device: torch.device | str = "cpu",
    progress: bool | Callable[[Row], None] = True,
    about: Mapping[str, Any] | None = None,
) -> dict[int, History]:
    """Train one network per seed, all of them in each step.

    Each seed sees the data that `fit` would show it, and ends where `fit` would, up to rounding;
    folder/<seed> is what `fit` leaves, but for last.pt: an interrupted call starts over, a seed
    whose run is finished is not trained again. Seconds are wall time divided by the seeds trained.

    Worth it where a step is many small operations. On one core of a shared CPU, against one seed
    after another (`benchmarks/seeds.py`): DigitNet at batch 64 took 0.9, 1.2 and 1.6 times as many
    steps a second with 3, 5 and 10 seeds, expanded (CL, rate 4) 1.05, 1.5 and 2 or more. Networks
    whose convolutions fill the core get slower: SmallNet A on 32 x 32 images, 3 seeds, 0.65.

    Args:
        make_net: Gives the network of a seed, always of the same architecture, without dropout.
        dataset: As for `fit`.
        recipe: As for `fit`.
        seeds: Distinct.
        folder: Holds a folder per seed.
        validation: As for `fit`.
        device: To train on.
        progress: As for `fit`; a function is called with each row of each seed.
        about: As for `fit`.

    Returns:
        Seed -> history.

    Raises:
        FileExistsError: A seed's folder holds another run, or another process trains in it.
        NonFiniteLoss: A seed's loss became NaN or infinite; nothing is written.
        RuntimeError: The network draws random numbers (dropout): torch says which.
        ValueError: Seeds repeat.
    """
    folder = Path(folder)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)} repeat; give each once")
    histories: dict[int, History] = {}
    waiting: dict[int, tuple[nn.Module, dict[str, Any]]] = {}
    with ExitStack() as locks:
        for seed in seeds:
            net = make_net(seed)
            configuration = describe(
                net,
                recipe,
                seed=seed,
                validation=validation,
                precision="32-true",
                about=about or {},
                dataset=describe_data(dataset),
                teacher=None,
                distillation=None,
            )
            path = folder / str(seed)
            history = _finished(configuration, path)
            if history is None:
                locks.enter_context(locked(path))
                history = _finished(configuration, path)  # by another process, just now
            if history is None:
                waiting[seed] = (net.to(device), configuration)
            else:
                histories[seed] = history
        if waiting:
            stack = _Seeds([net for net, _ in waiting.values()], recipe)
            trained = _train(stack, dataset, [*waiting], validation, torch.device(device), progress)
            for index, (seed, (net, configuration)) in enumerate(waiting.items()):
                path = folder / str(seed)
                write_run(path, configuration, net, torch.device(device), together=len(waiting))
                for name, tensors in (
                    (checkpoint.BEST_WEIGHTS, stack.best[index]),
                    (checkpoint.LAST_WEIGHTS, stack.of(index)),
                ):
                    _fill(net, tensors)
                    checkpoint.save_weights(net, path / name)
                checkpoint.write_history(path, trained[index])
                histories[seed] = trained[index]
    return {seed: histories[seed] for seed in seeds}


def _finished(configuration: Mapping[str, Any], folder: Path) -> History | None:
    return checkpoint.finished(folder) if check_same(configuration, folder) else None


def _train(
    stack: "_Seeds",
    dataset: Dataset,
    seeds: list[int],
    validation: int | float,
    device: torch.device,
    progress: bool | Callable[[Row], None],
) -> list[History]:
    recipe, count = stack.recipe, len(seeds)
    parts = [set_aside(dataset, validation, seed) for seed in seeds]
    train = [images for images, _ in parts]
    feeds = [
        training_batches(images, dataset, recipe, seed, device)
        for images, seed in zip(train, seeds, strict=True)
    ]
    test = [evaluation_batches(dataset.test, dataset, device)] * count
    held_out = [evaluation_batches(held, dataset, device) for _, held in parts if held is not None]
    histories = [History((), SELECTIONS[bool(validation)]) for _ in seeds]
    epochs, steps = recipe.epochs, len(feeds[0])
    with watching(progress, None, epochs=epochs, steps=steps, done=0) as watch:
        for epoch in range(epochs):
            start = time.perf_counter()
            lr, losses, errors, seconds_per_step = stack.epoch(epoch, feeds, seeds)
            accuracies = stack.accuracies(test)
            validated = stack.accuracies(held_out) if held_out else [None] * count
            seconds = (time.perf_counter() - start) / count
            watch.steps(epoch + 1, {"": losses[0]}, steps)
            for i in range(count):
                row = Row(
                    epoch=epoch + 1,
                    lr=lr,
                    train_loss=losses[i],
                    train_error=errors[i],
                    test_accuracy=accuracies[i],
                    validation_accuracy=validated[i],
                    seconds=seconds,
                    seconds_per_step=seconds_per_step / count,
                )
                histories[i] = replace(histories[i], rows=(*histories[i].rows, row))
                if histories[i].best_epoch == epoch + 1:
                    stack.best[i] = stack.of(i)
                watch.epoch(row)
    finals = stack.accuracies([evaluation_batches(images, dataset, device) for images in train])
    pairs = zip(histories, finals, strict=True)
    return [replace(history, final_train_error=1 - final) for history, final in pairs]


class _Seeds(Stack):
    """The networks of several seeds."""

    def __init__(self, nets: list[nn.Module], recipe: Recipe) -> None:
        super().__init__(nets, recipe, randomness="error")
        self.best: list[Tensors] = [{} for _ in nets]

    def epoch(
        self, epoch: int, feeds: list[Batches], seeds: list[int]
    ) -> tuple[float, list[float], list[float], float]:
        """Train on one pass; the last lr, mean losses, error rates, seconds per step of all."""
        if self.recipe.reset_momentum_each_epoch:
            self.optimizer.state.clear()
        sums, seen, lr, times = torch.zeros(len(feeds), 2, dtype=torch.float64), 0, 0.0, []
        for step, batches in enumerate(zip(*(f.epoch(epoch) for f in feeds), strict=True)):
            start = time.perf_counter()
            lr = self.recipe.lr_at(epoch * len(feeds[0]) + step, len(feeds[0]))
            images = torch.stack([images for images, _ in batches])
            labels = torch.stack([labels for _, labels in batches])
            tally = self.step(images, labels, lr)
            finite = tally[:, 0].isfinite()
            if not finite.all():
                raise NonFiniteLoss(
                    f"the loss of seed {seeds[int(finite.int().argmin())]} is not finite in epoch "
                    f"{epoch + 1}, step {step + 1}; {REMEDY}"
                )
            sums += tally
            seen += labels.shape[1]
            times.append(time.perf_counter() - start)
        if not all(tensor.isfinite().all() for tensor in self.trained.values()):
            raise NonFiniteLoss(f"a weight is not finite after epoch {epoch + 1}; {REMEDY}")
        losses, errors = (sums / seen).T.tolist()
        return lr, losses, errors, median(times)

    def accuracies(self, feeds: list[Batches]) -> list[float]:
        """Top-1 accuracy of each network on its own feed."""
        correct, seen = torch.zeros(len(feeds), dtype=torch.int64), 0
        for batches in zip(*(feed.epoch(0) for feed in feeds), strict=True):
            logits = self.logits(torch.stack([x for x, _ in batches]), shared=False)
            labels = torch.stack([y for _, y in batches])
            correct += (logits.argmax(dim=2) == labels).sum(dim=1).cpu()
            seen += labels.shape[1]
        return [count / seen for count in correct.tolist()]


@torch.no_grad()
def _fill(net: nn.Module, tensors: Tensors) -> None:
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if name in tensors:
            tensor.copy_(tensors[name])
