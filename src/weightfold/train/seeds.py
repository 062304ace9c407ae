"""Several seeds of one small network, trained as one vmapped batch."""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from weightfold.data import Batches, Dataset
from weightfold.train import checkpoint
from weightfold.train.feed import evaluation_batches, set_aside, training_batches
from weightfold.train.history import SELECTIONS, History, Row
from weightfold.train.logs import watching
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, describe, describe_data, write_run
from weightfold.train.steps import REMEDY, NonFiniteLoss, make_optimizer

Tensors = dict[str, Tensor]


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
        recipe: As for `fit`; decay on psi.
        seeds: Distinct.
        folder: Holds a folder per seed.
        validation: As for `fit`.
        device: To train on.
        progress: As for `fit`; a function is called with each row of each seed.
        about: As for `fit`.

    Returns:
        Seed -> history.

    Raises:
        FileExistsError: A seed's folder holds another run.
        NonFiniteLoss: A seed's loss became NaN or infinite; nothing is written.
        RuntimeError: The network draws random numbers (dropout): torch says which.
        ValueError: Seeds repeat, or the recipe decays theta.
    """
    folder = Path(folder)
    if recipe.weight_decay > 0 and recipe.decay_on == "theta":
        raise ValueError("decay_on='theta' is not offered for several seeds at once; use fit")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)} repeat; give each once")
    histories: dict[int, History] = {}
    waiting: dict[int, tuple[nn.Module, dict[str, Any]]] = {}
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
        there = check_same(configuration, folder / str(seed))
        history = checkpoint.finished(folder / str(seed)) if there else None
        if history is None:
            waiting[seed] = (net.to(device), configuration)
        else:
            histories[seed] = history
    if waiting:
        stack = _Stack([net for net, _ in waiting.values()], recipe)
        trained = _train(stack, dataset, list(waiting), validation, torch.device(device), progress)
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
    stack: "_Stack",
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


class _Stack:
    """Networks of one architecture, each tensor stacked to (networks, *shape)."""

    def __init__(self, nets: list[nn.Module], recipe: Recipe) -> None:
        self.recipe = recipe
        self._net = deepcopy(nets[0])
        parameters, buffers = stack_module_state(nets)
        self.trained: Tensors = {n: p for n, p in parameters.items() if p.requires_grad}
        self.rest: Tensors = {n: p for n, p in parameters.items() if not p.requires_grad} | buffers
        self.best: list[Tensors] = [{} for _ in nets]
        self.optimizer = make_optimizer(self.trained.values(), recipe, recipe.weight_decay)

    def of(self, index: int) -> Tensors:
        """A copy of one network's tensors."""
        return {n: t[index].detach().clone() for n, t in (self.trained | self.rest).items()}

    def epoch(
        self, epoch: int, feeds: list[Batches], seeds: list[int]
    ) -> tuple[float, list[float], list[float], float]:
        """Train on one pass; the last lr, mean losses, error rates, seconds per step of all."""
        if self.recipe.reset_momentum_each_epoch:
            self.optimizer.state.clear()
        self._net.train()
        sums, seen, lr, times = torch.zeros(len(feeds), 2, dtype=torch.float64), 0, 0.0, []
        for step, batches in enumerate(zip(*(f.epoch(epoch) for f in feeds), strict=True)):
            start = time.perf_counter()
            lr = self.recipe.lr_at(epoch * len(feeds[0]) + step, len(feeds[0]))
            images = torch.stack([images for images, _ in batches])
            labels = torch.stack([labels for _, labels in batches])
            tally = self._step(images, labels, lr).double().cpu()
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

    def _step(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """One optimizer step of every network; (networks, 2): summed loss, wrong."""

        def objective(
            trained: Tensors, rest: Tensors, x: Tensor, y: Tensor
        ) -> tuple[Tensor, tuple[Tensor, Tensors]]:
            logits = functional_call(self._net, trained | rest, (x,))
            loss = F.cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing)
            wrong = (logits.argmax(dim=1) != y).sum()
            return loss, (torch.stack([loss.detach() * len(y), wrong]), rest)

        leaves = {name: tensor.detach() for name, tensor in self.trained.items()}
        step = vmap(grad_and_value(objective, has_aux=True))
        gradients, (_, (tally, self.rest)) = step(leaves, self.rest, images, labels)
        scale = self._clip(gradients)
        for name, tensor in self.trained.items():
            gradient = gradients[name]
            tensor.grad = (
                gradient if scale is None else torch.einsum("s...,s->s...", gradient, scale)
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return tally

    def _clip(self, gradients: Tensors) -> Tensor | None:
        """Factor per network that brings its gradient's norm down to clip_norm."""
        if self.recipe.clip_norm is None:
            return None
        norms = [g.flatten(1).norm(dim=1) for g in gradients.values()]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return (self.recipe.clip_norm / (norm + 1e-6)).clamp(max=1)

    @torch.no_grad()
    def accuracies(self, feeds: list[Batches]) -> list[float]:
        """Top-1 accuracy of each network on its own feed."""
        self._net.eval()
        call = vmap(lambda tensors, x: functional_call(self._net, tensors, (x,)))
        correct, seen = torch.zeros(len(feeds), dtype=torch.int64), 0
        for batches in zip(*(feed.epoch(0) for feed in feeds), strict=True):
            logits = call(self.trained | self.rest, torch.stack([x for x, _ in batches]))
            labels = torch.stack([y for _, y in batches])
            correct += (logits.argmax(dim=2) == labels).sum(dim=1).cpu()
            seen += labels.shape[1]
        return [count / seen for count in correct.tolist()]


@torch.no_grad()
def _fill(net: nn.Module, tensors: Tensors) -> None:
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        tensor.copy_(tensors[name])
