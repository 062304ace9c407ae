"""One network on Lightning Fabric: any device, mixed precision, several processes."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.gradients import coordinates, warn_unreached
from weightfold.data import Augment
from weightfold.tasks.task import Task, evaluating, naming_dtype
from weightfold.train.evaluation import Evaluation
from weightfold.train.optimizer import InPlaceSGD, make_optimizer
from weightfold.train.penalty import Penalty
from weightfold.train.recipe import Recipe
from weightfold.train.strategies.base import Columns, Strategy, count, mean_scores

try:
    from lightning_fabric import Fabric
except ImportError as error:
    raise ImportError("training needs Lightning Fabric: pip install 'weightfold[train]'") from error


class OnFabric(Strategy):
    """One network with its optimizer, set up on this process's device.

    Args:
        fabric: Launched.
        net: The network.
        module: The module that holds it and whatever else is trained; moved to the device, in
            place.
        optimizer: Of its parameters.
        recipe: Every hyperparameter.
        seed: Of the run.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.fabric, self.net, self.module, self.recipe = fabric, net, module, recipe
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.seeds = (seed,)
        self.optimizer = optimizer
        self.model, self._stepper = fabric.setup(module, optimizer)
        self._unseen = coordinates(net)

    @property
    def device(self) -> torch.device:
        """As in `Strategy`."""
        return self.fabric.device

    @abstractmethod
    def losses(self, batch: Any) -> tuple[Any, Tensor]:
        """What `backward` takes; and (domains, 2 + scores), see `count`, of this process."""

    def backward(self, loss: Any) -> None:
        """Fill the gradients."""
        self.fabric.backward(loss)

    def step(self, batch: Any, lr: float) -> Tensor:
        """As in `Strategy`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("factor", 1.0)
        loss, counts = self.losses(batch)
        self.optimizer.zero_grad()
        self.backward(loss)
        if self._unseen:
            warn_unreached(self._unseen, dict(self.net.named_parameters()))
            self._unseen = []
        if self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model,
                self._stepper,
                max_norm=self.recipe.clip_norm,
                error_if_nonfinite=False,  # 16-mixed skips such a step; else the next loss tells
            )
        self._stepper.step()
        return counts[None]

    def tensors(self, index: int) -> dict[str, Tensor]:
        """As in `Strategy`."""
        both = (*self.net.named_parameters(), *self.net.named_buffers())
        return {name: tensor.detach().clone() for name, tensor in both}

    def state_of(self, index: int) -> dict[str, Tensor]:
        """As in `Strategy`."""
        return self.net.state_dict()

    def trained(self, index: int) -> Mapping[str, Tensor]:
        """As in `Strategy`."""
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    def state_dict(self) -> dict[str, Any]:
        """As in `Strategy`."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As in `Strategy`."""
        self.module.load_state_dict(state["module"])
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def barrier(self) -> None:
        """As in `Strategy`."""
        self.fabric.barrier()

    def total(self, counts: Tensor) -> Tensor:
        """As in `Strategy`."""
        if self.world == 1:
            return counts
        counts = counts.to(self.device)
        self.fabric.all_reduce(counts, reduce_op="sum")
        return counts


class Single(OnFabric):
    """One network on one task.

    Args:
        fabric: Launched.
        net: Moved to the device, in place.
        task: What it learns.
        recipe: Every hyperparameter.
        seed: Of data order, augmentation and dropout.
        name: Of the run.
        optimizer: Of the network; None: the recipe's.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        task: Task,
        recipe: Recipe,
        seed: int,
        name: str = "",
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self._penalty = Penalty(net, recipe).to(fabric.device) if recipe.penalizes_theta else None
        decay = 0.0 if recipe.penalizes_theta else recipe.weight_decay
        optimizer = optimizer or make_optimizer(net.parameters(), recipe, decay)
        super().__init__(fabric, net, net, optimizer, recipe, seed)
        self.names, self.scores = (name,), mean_scores(task)
        plain = fabric.strategy.precision.precision == "32-true"
        self._autocast = nullcontext if plain else fabric.autocast
        self._task, self._ran = task, False
        self._batches = task.batches(
            "train",
            fabric.device,
            batch_size=recipe.batch_size,
            seed=seed,
            augment=Augment(recipe.crop_padding, recipe.flip),
            processes=fabric.world_size,
        )
        self._evaluations: dict[str, Evaluation] = {}

    @property
    def steps_per_epoch(self) -> int:
        """As in `Strategy`."""
        return len(self._batches)

    @property
    def parts(self) -> tuple[str, ...]:
        """As in `Strategy`."""
        return tuple(self._task.dataset.parts)

    def begin_epoch(self, epoch: int) -> None:
        """In train mode."""
        self.net.train()

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """As in `Strategy`."""
        return self._batches.epoch(epoch, first)

    def losses(self, batch: tuple[Tensor, Any]) -> tuple[Tensor, Tensor]:
        """As in `OnFabric`."""
        inputs, targets = batch
        share = self.world / len(targets)  # DDP averages: in all, the mean over the whole batch
        if self.world > 1:
            inputs, targets = inputs[self.rank :: self.world], targets[self.rank :: self.world]
        naming = nullcontext() if self._ran else naming_dtype(self.net)
        with naming, self._autocast():
            terms = self._task.objective(self.model, inputs, targets)
        self._ran = True
        loss = terms.losses.sum() * share if terms.losses.dim() else terms.losses
        if self._penalty is not None:
            loss = loss + self._penalty()
        return loss, count(terms, len(targets), self.scores)[None]

    def evaluate(self, part: str) -> list[Columns]:
        """As in `Strategy`."""
        return [dict(self._evaluation(part).of(self.net, self.model))]

    @torch.no_grad()
    def outputs(self, part: str) -> Iterator[tuple[Tensor, Any]]:
        """As in `Strategy`."""
        with evaluating(self.net):
            for outputs, targets in self._evaluation(part).outputs(self.net, self.model):
                yield _alone(outputs), _alone(targets)

    def finish(self) -> None:
        """Leave the network as any is."""
        if isinstance(self.optimizer, InPlaceSGD):
            self.optimizer.close()

    def _evaluation(self, part: str) -> Evaluation:
        if part not in self._evaluations:
            self._evaluations[part] = Evaluation(self._task, part, self.device, self.fabric)
        return self._evaluations[part]


def _alone(values: Any) -> Any:
    """Of a single run, where a dimension, or a list, of runs is wanted."""
    return values[None] if isinstance(values, Tensor) else [values]
