"""The training steps of several domains."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.tasks.task import Task
from weightfold.train.domains.feed import Batch
from weightfold.train.domains.joint import Joint
from weightfold.train.domains.objective import (
    Objective,
    Terms,
    classifiers,
    only,
    shared_parameters,
)
from weightfold.train.domains.options import Aggregator
from weightfold.train.logs import Watch
from weightfold.train.recipe import Recipe
from weightfold.train.steps import Fabric, Feed, Steps, Trained, make_optimizer, mean_scores


class JointSteps(Steps):
    """Steps of a SharedNet, or a Charted net over one, on several domains.

    Args:
        fabric: Launched.
        net: Moved to the device, in place.
        tasks: Domain -> task, for all domains.
        recipe: Every hyperparameter.
        joint: How the domains are trained together.
        aggregator: What combines the domains' gradients of shared parameters, if not their sum.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        tasks: Mapping[str, Task],
        recipe: Recipe,
        joint: Joint,
        aggregator: Aggregator | None,
    ) -> None:
        names, weights = tuple(tasks), joint.loss_weights
        fixed = dict.fromkeys(names, 1.0) if weights is None else weights
        self._objective = Objective(net, None if fixed == "uncertainty" else fixed, tasks)
        scores = mean_scores(next(iter(tasks.values())))
        optimizer = make_optimizer(net.parameters(), recipe, recipe.weight_decay)
        if len(self._objective.log_variances):
            learned = list(self._objective.log_variances)
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        super().__init__(fabric, net, self._objective, optimizer, recipe, names, scores)
        self._joint, self._aggregator = joint, aggregator
        self._heads = classifiers(net) if joint.head_epochs else []
        told_apart = aggregator is not None or joint.shared_gradient == "mean"
        shapes = {name: task.dataset.shape for name, task in tasks.items()}
        self._shared = shared_parameters(net, shapes) if told_apart else []

    def forward(self, part: str, inputs: Tensor) -> Any:
        """Outputs for inputs of one domain."""
        return self.model({part: inputs})[part]

    def weights(self) -> dict[str, float]:
        """Domain -> factor of its loss, now."""
        return self._objective.weights()

    def epoch(self, index: int, batches: Feed, seed: int, watch: Watch) -> Trained:
        """As in `Steps`; in train mode, or in eval mode where only classifiers are trained."""
        if index >= self._joint.head_epochs:
            self.net.train()
            return super().epoch(index, batches, seed, watch)
        self.net.eval()
        with only(self._objective, self._heads):
            return super().epoch(index, batches, seed, watch)

    def _lr(self, epoch: int, step: int, steps: int) -> float:
        joint = epoch - self._joint.head_epochs
        return self.recipe.lr if joint < 0 else super()._lr(joint, step, steps)

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        terms: Terms = self.model(
            {name: inputs[rank::world] for name, (inputs, _) in batch.items()},
            {name: targets[rank::world] for name, (_, targets) in batch.items()},
            # DDP averages: in all, each domain's mean over its whole batch
            {name: world / len(targets) for name, (_, targets) in batch.items()},
        )
        absent = torch.zeros(2 + len(self.scores), device=self.fabric.device)
        counts = [terms.counts.get(name, absent) for name in self.parts]
        return terms.losses, torch.stack(counts)

    def _backward(self, loss: dict[str, Tensor]) -> None:
        """Fill the gradients of what the domains of the step depend on; others stay None."""
        training_heads = not self.net.training
        if self._aggregator is not None and not training_heads:
            self._aggregate(list(loss.values()), self._aggregator)
            return
        self.fabric.backward(torch.stack(list(loss.values())).sum())
        if self._joint.shared_gradient == "mean":
            for parameter in self._shared:
                if parameter.grad is not None:
                    parameter.grad /= len(loss)

    def _aggregate(self, losses: list[Tensor], aggregator: Aggregator) -> None:
        rows: list[Tensor] = []
        for place, loss in enumerate(losses):
            self.fabric.backward(loss, retain_graph=place + 1 < len(losses))
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._shared]
            rows.append(torch.cat([gradient.flatten() for gradient in found]))
            for parameter in self._shared:
                parameter.grad = None
        combined = aggregator(torch.stack(rows)).split([p.numel() for p in self._shared])
        for parameter, gradient in zip(self._shared, combined, strict=True):
            parameter.grad = gradient.view_as(parameter)
