"""Several seeds of one small network, trained as one vmapped batch."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from weightfold.data import Augment, Batches, Data
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train import checkpoint
from weightfold.train.evaluation import judged
from weightfold.train.history import SELECTIONS, History, Row
from weightfold.train.logs import watching
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, describe, write_run
from weightfold.train.runs import together
from weightfold.train.steps import REMEDY, NonFiniteLoss, mean_scores
from weightfold.train.strategies.stack import Stack, Tensors


def fit_seeds(
    make_net: Callable[[int], nn.Module],
    data: Task | Data,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    folder: Path | str,
    device: torch.device | str = "cpu",
    progress: bool | Callable[[Row], None] = True,
    options: Options | None = None,
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
        data: As for `fit`.
        recipe: As for `fit`.
        seeds: Distinct.
        folder: Holds a folder per seed.
        device: To train on.
        progress: As for `fit`; a function is called with each row of each seed.
        options: As for `fit`: its `validation` and `about`.

    Returns:
        Seed -> history.

    Raises:
        FileExistsError: A seed's folder holds another run.
        NonFiniteLoss: A seed's loss became NaN or infinite; nothing is written.
        RuntimeError: The network draws random numbers (dropout): torch says which.
        ValueError: Seeds repeat.
    """
    folder, options, given = Path(folder), options or Options(), as_task(data)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)} repeat; give each once")
    histories: dict[int, History] = {}
    waiting: dict[int, tuple[nn.Module, dict[str, Any]]] = {}
    tasks: dict[int, Task] = {}
    for seed in seeds:
        net = make_net(seed)
        task = given.with_smoothing(recipe.label_smoothing).hold_out(options.validation, seed)
        task.check(net)
        configuration = describe(
            net,
            recipe,
            seed=seed,
            options=options,
            task=task.identity(),
        )
        there = check_same(configuration, folder / str(seed))
        history = checkpoint.finished(folder / str(seed)) if there else None
        if history is None:
            waiting[seed], tasks[seed] = (net.to(device), configuration), task
        else:
            histories[seed] = history
    if waiting:
        stack = _Seeds([net for net, _ in waiting.values()], given, recipe)
        trained = _train(stack, tasks, torch.device(device), progress)
        for index, (seed, (net, configuration)) in enumerate(waiting.items()):
            path = folder / str(seed)
            path.mkdir(parents=True, exist_ok=True)
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


def _train(
    stack: "_Seeds",
    tasks: dict[int, Task],
    device: torch.device,
    progress: bool | Callable[[Row], None],
) -> list[History]:
    recipe, count, seeds = stack.recipe, len(tasks), list(tasks)
    size, augment = recipe.batch_size, Augment(recipe.crop_padding, recipe.flip)
    feeds = [
        task.batches("train", device, batch_size=size, seed=seed, augment=augment)
        for seed, task in tasks.items()
    ]
    first = next(iter(tasks.values()))
    parts = [part for part in ("test", "validation") if part in first.dataset.parts]
    held = {part: [task.batches(part, device) for task in tasks.values()] for part in parts}
    epochs, steps = recipe.epochs, len(feeds[0])
    selection = SELECTIONS["validation" in parts]
    histories = [History((), selection, first.measures, steps_per_epoch=steps) for _ in seeds]
    with watching(progress, None, epochs=epochs, steps=steps, done=0) as watch:
        for epoch in range(epochs):
            start = time.perf_counter()
            lr, trained, seconds_per_step = stack.epoch(epoch, feeds, seeds)
            found = {part: stack.evaluated(batches, part) for part, batches in held.items()}
            seconds = (time.perf_counter() - start) / count
            watch.steps(epoch + 1, {"": trained[0]["train_loss"]}, steps)
            for i in range(count):
                values = dict(trained[i])
                for each in found.values():
                    values |= each[i]
                row = Row(
                    epoch=epoch + 1,
                    lr=lr,
                    seconds=seconds,
                    seconds_per_step=seconds_per_step / count,
                    values=trained[i]
                    | {k: v for each in found.values() for k, v in each[i].items()},
                    step=(epoch + 1) * steps,
                )
                histories[i] = histories[i].extended(row)
                if histories[i].best_epoch == epoch + 1:
                    stack.best[i] = stack.of(i)
                watch.epoch(row)
    training = [task.batches("train", device) for task in tasks.values()]
    finals = stack.evaluated(training, "train_eval")
    return [history.completed(final) for history, final in zip(histories, finals, strict=True)]


class _Seeds(Stack):
    """The networks of several seeds."""

    def __init__(self, nets: list[nn.Module], task: Task, recipe: Recipe) -> None:
        super().__init__(nets, task, recipe, randomness="error")
        self.best: list[Tensors] = [{} for _ in nets]
        self._names = ("loss", *mean_scores(task))

    def epoch(
        self, epoch: int, feeds: list[Batches], seeds: list[int]
    ) -> tuple[float, list[dict[str, float]], float]:
        """Train on one pass; the last lr, columns of each network, seconds per step of all."""
        if self.recipe.reset_momentum_each_epoch:
            self.optimizer.state.clear()
        sums, seen, lr = torch.zeros(len(feeds), self.columns, dtype=torch.float64), 0, 0.0
        times = []
        for step, batches in enumerate(zip(*(f.epoch(epoch) for f in feeds), strict=True)):
            start = time.perf_counter()
            lr = self.recipe.lr_at(epoch * len(feeds[0]) + step, len(feeds[0]))
            inputs = torch.stack([inputs for inputs, _ in batches])
            targets = together([targets for _, targets in batches])
            tally = self.step(inputs, targets, lr)
            finite = tally[:, 0].isfinite()
            if not finite.all():
                raise NonFiniteLoss(
                    f"the loss of seed {seeds[int(finite.int().argmin())]} is not finite in epoch "
                    f"{epoch + 1}, step {step + 1}; {REMEDY}"
                )
            sums += tally
            seen += len(targets[0])
            times.append(time.perf_counter() - start)
        if not all(tensor.isfinite().all() for tensor in self.trained.values()):
            raise NonFiniteLoss(f"a weight is not finite after epoch {epoch + 1}; {REMEDY}")
        means = (sums / seen).tolist()
        names = [f"train_{name}" for name in self._names]
        return lr, [dict(zip(names, row, strict=True)) for row in means], median(times)

    def evaluated(self, feeds: list[Batches], part: str) -> list[dict[str, float]]:
        """Columns of each network on its own feed."""
        sums, seen = torch.zeros(len(feeds), self.columns, dtype=torch.float64), 0
        metrics = [self.task.metrics() for _ in feeds]
        for batches in zip(*(feed.epoch(0) for feed in feeds), strict=True):
            outputs = self.outputs(torch.stack([x for x, _ in batches]), shared=False)
            for i, (one, (_, targets)) in enumerate(zip(outputs, batches, strict=True)):
                found = judged(self.task, one, targets)
                sums[i] += torch.stack([found[n].sum() for n in self._names]).cpu().double()
                for metric in metrics[i].values():
                    metric.to(one.device).update(one, targets)
            seen += len(batches[0][1])
        rows = [dict(zip(self._names, row, strict=True)) for row in (sums / seen).tolist()]
        for row, given in zip(rows, metrics, strict=True):
            row |= {name: float(metric.compute()) for name, metric in given.items()}
        return [{f"{part}_{name}": value for name, value in row.items()} for row in rows]


@torch.no_grad()
def _fill(net: nn.Module, tensors: Tensors) -> None:
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if name in tensors:
            tensor.copy_(tensors[name])
