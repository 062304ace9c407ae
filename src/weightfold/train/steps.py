"""The training steps of one epoch."""

import copy
import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from weightfold.data import Batches
from weightfold.train.logs import Watch
from weightfold.train.objective import sample_losses, squared_norm
from weightfold.train.recipe import Distillation, Recipe

try:
    from lightning_fabric import Fabric
except ImportError as error:
    raise ImportError("training needs Lightning Fabric: pip install 'weightfold[train]'") from error

LOOK_EVERY = 20
"""Steps between looks at the loss on an accelerator, where a look waits for the device."""


REMEDY = "lower lr, add warmup_epochs or set clip_norm"


class NonFiniteLoss(ArithmeticError):
    """The loss, or a weight, became NaN or infinite; the last good checkpoint stays on disk."""


@dataclass(frozen=True)
class Trained:
    """What an epoch's steps report; the fields are those of `Row`."""

    lr: float
    train_loss: float
    train_error: float
    seconds_per_step: float


class Steps:
    """A network with its optimizer and its objective, set up on this process's device.

    Args:
        fabric: Launched.
        net: Moved to the device, in place.
        classes: How many logits it must give.
        recipe: Every hyperparameter.
        teacher: To distill from; a copy is used.
        distillation: How; with `teacher`.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        classes: int,
        recipe: Recipe,
        teacher: nn.Module | None,
        distillation: Distillation | None,
    ) -> None:
        self.fabric, self.net, self.recipe, self.distillation = fabric, net, recipe, distillation
        self._classes = classes
        on_theta = recipe.weight_decay > 0 and recipe.decay_on == "theta"
        self._norm = squared_norm(net) if on_theta else None
        self.optimizer = make_optimizer(
            net.parameters(), recipe, 0.0 if on_theta else recipe.weight_decay
        )
        self.model, self._stepper = fabric.setup(net, self.optimizer)
        self._teacher = copy.deepcopy(teacher).eval().to(fabric.device) if teacher else None
        self._look_every = 1 if fabric.device.type == "cpu" else LOOK_EVERY

    def epoch(self, index: int, batches: Batches, seed: int, watch: Watch) -> Trained:
        """Train on one pass over `batches`.

        Args:
            index: The epoch, from 0.
            batches: Every process draws whole batches and takes its slice.
            seed: With `index` and the process, of torch's random numbers (dropout).
            watch: Hears of the steps.

        Raises:
            NonFiniteLoss: A loss, or after the epoch a parameter, is NaN or infinite.
            ValueError: The network has another number of outputs than the data set classes.
        """
        torch.manual_seed(_seed(seed, index, self.fabric.global_rank))
        if self.recipe.reset_momentum_each_epoch:
            self.optimizer.state.clear()
        self.net.train()
        tally, pending, lr = _Tally(), [], self.recipe.lr
        start = time.perf_counter()
        for step, (images, labels) in enumerate(batches.epoch(index)):
            lr = self.recipe.lr_at(index * len(batches) + step, len(batches))
            pending.append(self._step(images, labels, lr))
            if len(pending) == self._look_every or step + 1 == len(batches):
                loss = tally.add(torch.stack(pending).tolist())
                if not math.isfinite(loss):
                    raise NonFiniteLoss(
                        f"the loss is {loss} in epoch {index + 1}, step {tally.steps} of "
                        f"{len(batches)} (lr={lr:.3g}); the checkpoint of epoch {index} stays; "
                        f"{REMEDY}"
                    )
                now = time.perf_counter()
                tally.times.append((now - start) / len(pending))
                watch.steps(index + 1, loss, len(pending))
                start, pending = now, []
        broken = [n for n, p in self.net.named_parameters() if not p.isfinite().all()]
        if broken:
            raise NonFiniteLoss(
                f"{broken[0]} is no longer finite after epoch {index + 1}; the checkpoint of epoch "
                f"{index} stays; {REMEDY}"
            )
        sums = torch.tensor([tally.loss, tally.wrong, tally.seen], device=self.fabric.device)
        self.fabric.all_reduce(sums, reduce_op="sum")
        loss, wrong, seen = sums.tolist()
        return Trained(lr, loss / seen, wrong / seen, median(tally.times))

    def _step(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """One optimizer step; (3,): the loss summed over this process's images, wrong, seen."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        share = world / len(labels)  # DDP averages: in all, the mean over the whole batch
        images, labels = images[rank::world], labels[rank::world]
        logits = self.model(images)
        if logits.shape[1:] != (self._classes,):
            raise ValueError(
                f"net gives outputs of shape {tuple(logits.shape[1:])} per image, but the data set "
                f"has {self._classes} classes; build it with num_classes={self._classes}"
            )
        losses = sample_losses(
            logits,
            labels,
            label_smoothing=self.recipe.label_smoothing,
            teacher_logits=self._teach(images),
            distillation=self.distillation,
        )
        loss = losses.sum() * share
        if self._norm is not None:
            loss = loss + self.recipe.weight_decay / 2 * self._norm()
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
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
        wrong = (logits.detach().argmax(dim=1) != labels).sum()
        return torch.stack([losses.detach().sum(), wrong, torch.full_like(wrong, len(labels))])

    @torch.no_grad()
    def _teach(self, images: Tensor) -> Tensor | None:
        if self._teacher is None:
            return None
        with self.fabric.autocast():
            return self._teacher(images).float()


class _Tally:
    """Running sums of an epoch on this process."""

    def __init__(self) -> None:
        self.loss, self.wrong, self.seen, self.steps = 0.0, 0.0, 0.0, 0
        self.times: list[float] = []

    def add(self, steps: list[list[float]]) -> float:
        """Add rows of `Steps._step` up to the first non-finite; the last one's mean loss."""
        mean = math.nan
        for loss, wrong, seen in steps:
            self.loss, self.wrong, self.seen = (
                self.loss + loss,
                self.wrong + wrong,
                self.seen + seen,
            )
            self.steps += 1
            mean = loss / seen
            if not math.isfinite(mean):
                break
        return mean


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


def _seed(seed: int, epoch: int, rank: int) -> int:
    """A seed for each (seed, epoch, process), so that no random state need be saved."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch} {rank}".encode()).digest()[:6])
