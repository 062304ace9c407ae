"""The training steps of one epoch."""

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from weightfold.tasks.task import Task, Terms
from weightfold.train.logs import Watch
from weightfold.train.objective import Penalty
from weightfold.train.recipe import Recipe

try:
    from lightning_fabric import Fabric
except ImportError as error:
    raise ImportError("training needs Lightning Fabric: pip install 'weightfold[train]'") from error

LOOK_EVERY = 20
"""Steps between looks at the loss on an accelerator, where a look waits for the device."""


REMEDY = "lower lr, add warmup_epochs or set clip_norm"


class NonFiniteLoss(ArithmeticError):
    """The loss, or a weight, became NaN or infinite; the last good checkpoint stays on disk."""


class Feed(Protocol):
    """What `Steps` trains on; every process draws whole batches and takes its slice."""

    def __len__(self) -> int:
        """Steps in an epoch."""

    def epoch(self, index: int) -> Iterator[Any]:
        """The batches of an epoch: a function of its index alone."""


@dataclass(frozen=True)
class Trained:
    """What an epoch's steps report."""

    lr: float
    """As in `Row`."""
    seconds_per_step: float
    """As in `Row`."""
    values: dict[str, dict[str, float | None]]
    """By domain: `train_loss`, `train_accuracy`... as in `Row`; None where no example was seen."""


class Steps(ABC):
    """A network with its optimizer, set up on this process's device; a subclass has the objective.

    Args:
        fabric: Launched.
        net: The network.
        trained: The module that holds it and whatever else is trained; moved to the device, in
            place.
        optimizer: Of its parameters.
        recipe: Every hyperparameter.
        parts: Names of the domains, "" for the only one.
        scores: Names of what `_losses` counts beside the loss.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        trained: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        parts: tuple[str, ...],
        scores: tuple[str, ...],
    ) -> None:
        self.scores = scores
        self.fabric, self.net, self.trained, self.recipe = fabric, net, trained, recipe
        self.optimizer, self.parts = optimizer, parts
        self.model, self._stepper = fabric.setup(trained, optimizer)
        self._look_every = 1 if fabric.device.type == "cpu" else LOOK_EVERY

    @abstractmethod
    def forward(self, part: str, inputs: Tensor) -> Any:
        """Outputs for inputs of one domain."""

    @abstractmethod
    def _losses(self, batch: Any) -> tuple[Any, Tensor]:
        """What `_backward` takes; and (parts, 2 + scores), see `count`, of this process."""

    def _backward(self, loss: Any) -> None:
        """Fill the gradients."""
        self.fabric.backward(loss)

    def _lr(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step; `epoch` and `step` from 0."""
        return self.recipe.lr_at(epoch * steps + step, steps)

    def epoch(self, index: int, batches: Feed, seed: int, watch: Watch) -> Trained:
        """Train on one pass over `batches`.

        Args:
            index: The epoch, from 0.
            batches: To train on.
            seed: With `index` and the process, of torch's random numbers (dropout).
            watch: Hears of the steps.

        Raises:
            NonFiniteLoss: A loss, or after the epoch a parameter, is NaN or infinite.
        """
        torch.manual_seed(mixed_seed(seed, index, self.fabric.global_rank))
        if self.recipe.reset_momentum_each_epoch:
            self.optimizer.state.clear()
        tally, pending, lr = _Tally(self.parts, 2 + len(self.scores)), [], self.recipe.lr
        start = time.perf_counter()
        for step, batch in enumerate(batches.epoch(index)):
            lr = self._lr(index, step, len(batches))
            pending.append(self._step(batch, lr))
            if len(pending) == self._look_every or step + 1 == len(batches):
                bad = tally.add(torch.stack(pending).tolist())
                if bad is not None:
                    raise NonFiniteLoss(
                        f"the loss{f' of {bad!r}' if bad else ''} is {tally.last[bad]} in epoch "
                        f"{index + 1}, step {tally.steps} of {len(batches)} (lr={lr:.3g}); the "
                        f"checkpoint of epoch {index} stays; {REMEDY}"
                    )
                now = time.perf_counter()
                tally.times.append((now - start) / len(pending))
                watch.steps(index + 1, tally.last, len(pending))
                start, pending = now, []
        broken = [n for n, p in self.net.named_parameters() if not p.isfinite().all()]
        if broken:
            raise NonFiniteLoss(
                f"{broken[0]} is no longer finite after epoch {index + 1}; the checkpoint of epoch "
                f"{index} stays; {REMEDY}"
            )
        sums = torch.tensor(tally.sums, device=self.fabric.device)
        self.fabric.all_reduce(sums, reduce_op="sum")
        names = ("loss", *self.scores)
        values = {n: _means(names, r) for n, r in zip(self.parts, sums.tolist(), strict=True)}
        return Trained(lr, median(tally.times), values)

    def _step(self, batch: Any, lr: float) -> Tensor:
        """One optimizer step; (parts, 2 + scores): seen, summed loss and scores of this process."""
        loss, counts = self._losses(batch)
        self.optimizer.zero_grad()
        self._backward(loss)
        if self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model,
                self._stepper,
                max_norm=self.recipe.clip_norm,
                error_if_nonfinite=False,  # 16-mixed skips such a step; else the next loss tells
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._stepper.step()
        return counts


class PlainSteps(Steps):
    """Steps of one network on one task.

    Args:
        fabric: Launched.
        net: Moved to the device, in place.
        task: What it learns.
        recipe: Every hyperparameter.
    """

    def __init__(self, fabric: Fabric, net: nn.Module, task: Task, recipe: Recipe) -> None:
        self._penalty = Penalty(net, recipe).to(fabric.device) if recipe.penalizes_theta else None
        decay = 0.0 if recipe.penalizes_theta else recipe.weight_decay
        optimizer = make_optimizer(net.parameters(), recipe, decay)
        self._task = task.with_smoothing(recipe.label_smoothing)
        super().__init__(fabric, net, net, optimizer, recipe, ("",), mean_scores(task))

    def forward(self, part: str, inputs: Tensor) -> Any:
        """The net's outputs."""
        return self.model(inputs)

    def epoch(self, index: int, batches: Feed, seed: int, watch: Watch) -> Trained:
        """As in `Steps`, in train mode."""
        self.net.train()
        return super().epoch(index, batches, seed, watch)

    def _losses(self, batch: tuple[Tensor, Any]) -> tuple[Tensor, Tensor]:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        inputs, targets = batch
        share = world / len(targets)  # DDP averages: in all, the mean over the whole batch
        inputs, targets = inputs[rank::world], targets[rank::world]
        with self.fabric.autocast():
            terms = self._task.objective(self.model, inputs, targets)
        loss = terms.losses.sum() * share if terms.losses.dim() else terms.losses
        if self._penalty is not None:
            loss = loss + self._penalty()
        return loss, count(terms, len(targets), self.scores)[None]


def mean_scores(task: Task) -> tuple[str, ...]:
    """Names of the measures that are means over examples, which training steps count."""
    counted = set(task.metrics())
    names = () if task.model_computes_loss else task.measures
    return tuple(measure.name for measure in names if measure.name not in counted)


def count(terms: Terms, seen: int, scores: tuple[str, ...]) -> Tensor:
    """(2 + scores,): examples, and their losses and scores summed."""
    losses = terms.losses.detach()
    loss = losses.sum() if losses.dim() else losses * seen
    summed = [terms.scores[name].sum() for name in scores]
    return torch.stack([torch.full_like(loss, seen), loss, *summed])


def _means(names: tuple[str, ...], sums: list[float]) -> dict[str, float | None]:
    seen, *values = sums
    pairs = zip(names, values, strict=True)
    return {f"train_{name}": value / seen if seen else None for name, value in pairs}


class _Tally:
    """Running sums of an epoch on this process."""

    def __init__(self, parts: tuple[str, ...], columns: int) -> None:
        self.sums, self.steps = [[0.0] * columns for _ in parts], 0
        self.last: dict[str, float] = {}
        self.times: list[float] = []
        self._parts = parts

    def add(self, steps: list[list[list[float]]]) -> str | None:
        """Add steps' (parts, columns); the part whose loss was the first not finite, if any."""
        for step in steps:
            self.steps += 1
            for part, sums, row in zip(self._parts, self.sums, step, strict=True):
                sums[:] = (total + value for total, value in zip(sums, row, strict=True))
                if row[0]:
                    self.last[part] = row[1] / row[0]
                if not math.isfinite(row[1]):
                    return part
        return None


def make_optimizer(
    tensors: Iterable[Tensor], recipe: Recipe, weight_decay: float
) -> torch.optim.Optimizer:
    """The recipe's optimizer of those tensors that require a gradient."""
    parameters = [p for p in tensors if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=weight_decay,
    )


def mixed_seed(*parts: int | str) -> int:
    """A seed for each (seed, epoch, process, ...), so that no random state need be saved."""
    mixed = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(mixed[:6])
