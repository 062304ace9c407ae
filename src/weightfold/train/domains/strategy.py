"""One network on many domains, on Lightning Fabric."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.data import Augment
from weightfold.tasks.task import Task, evaluating
from weightfold.train.domains.batches import Batch, DomainBatches
from weightfold.train.domains.objective import (
    DomainTerms,
    Objective,
    classifiers,
    only,
    shared_parameters,
)
from weightfold.train.domains.options import Aggregator, DomainOptions
from weightfold.train.evaluation import Evaluation
from weightfold.train.loop import with_means
from weightfold.train.optimizer import make_optimizer
from weightfold.train.recipe import Recipe
from weightfold.train.strategies.base import Columns, mean_scores
from weightfold.train.strategies.fabric import Fabric, OnFabric


class Domains(OnFabric):
    """A SharedNet, or a Charted net over one, on several domains.

    Args:
        fabric: Launched.
        net: Moved to the device, in place.
        tasks: Domain -> task, for all domains, of equal measures.
        recipe: Every hyperparameter.
        seed: Of data order, augmentation, sampler and dropout.
        options: How the domains are trained together.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        tasks: Mapping[str, Task],
        recipe: Recipe,
        seed: int,
        options: DomainOptions,
    ) -> None:
        self._joint, self._aggregator = options.joint, options.aggregator
        weights = self._joint.loss_weights
        fixed = dict.fromkeys(tasks, 1.0) if weights is None else weights
        self._objective = Objective(net, None if fixed == "uncertainty" else fixed, tasks)
        optimizer = make_optimizer(net.parameters(), recipe, recipe.weight_decay)
        if len(self._objective.log_variances):
            learned = list(self._objective.log_variances)
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        super().__init__(fabric, net, self._objective, optimizer, recipe, seed)
        self.domains, self._tasks = tuple(tasks), dict(tasks)
        self.scores = mean_scores(next(iter(tasks.values())))
        self._heads = classifiers(net) if self._joint.head_epochs else []
        told_apart = self._aggregator is not None or self._joint.shared_gradient == "mean"
        shapes = {name: task.dataset.shape for name, task in tasks.items()}
        self._shared = shared_parameters(net, shapes) if told_apart else []
        self._frozen = ExitStack()
        batches = {
            name: task.batches(
                "train",
                fabric.device,
                batch_size=recipe.batch_size,
                seed=seed,
                augment=Augment(recipe.crop_padding, recipe.flip),
                processes=fabric.world_size,
            )
            for name, task in tasks.items()
        }
        sizes = {name: len(task.dataset.train) for name, task in tasks.items()}
        self._batches = DomainBatches(batches, sizes, self._joint, seed, self.epochs)
        self._evaluations: dict[tuple[str, str], Evaluation] = {}

    @property
    def steps_per_epoch(self) -> int:
        """As in `Strategy`."""
        return len(self._batches)

    @property
    def epochs(self) -> int:
        """Those of the classifiers, then the joint ones."""
        return self._joint.head_epochs + self.recipe.epochs

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that all domains have."""
        datasets = [task.dataset for task in self._tasks.values()]
        return tuple(p for p in datasets[0].parts if all(p in d.parts for d in datasets))

    def lr(self, at: int) -> float:
        """Of the classifiers' epochs the recipe's lr, unscheduled."""
        joint = at - self._joint.head_epochs * self.steps_per_epoch
        return self.recipe.lr if joint < 0 else super().lr(joint)

    def begin_epoch(self, epoch: int) -> None:
        """In train mode, or in eval mode with all else frozen for the classifiers' epochs."""
        self._frozen.close()
        heads = epoch < self._joint.head_epochs
        self.net.train(not heads)
        if heads:
            self._frozen.enter_context(only(self._objective, self._heads))

    def finish(self) -> None:
        """Nothing stays frozen."""
        self._frozen.close()

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """As in `Strategy`."""
        return self._batches.epoch(epoch, first)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """As in `OnFabric`."""
        mine = slice(self.rank, None, self.world)
        terms: DomainTerms = self.model(
            {name: inputs[mine] for name, (inputs, _) in batch.items()},
            {name: targets[mine] for name, (_, targets) in batch.items()},
            # DDP averages: in all, each domain's mean over its whole batch
            {name: self.world / len(targets) for name, (_, targets) in batch.items()},
        )
        absent = torch.zeros(2 + len(self.scores), device=self.device)
        return terms.losses, torch.stack([terms.counts.get(n, absent) for n in self.domains])

    def backward(self, loss: dict[str, Tensor]) -> None:
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

    def columns(self) -> Columns:
        """The weights of the domains' losses."""
        return {f"weight/{name}": value for name, value in self._objective.weights().items()}

    def evaluate(self, part: str) -> list[Columns]:
        """The domains' means, and of each domain."""
        return [
            with_means(
                {
                    domain: self._evaluation(domain, part).of(self.net, self._forward(domain))
                    for domain in self.domains
                }
            )
        ]

    @torch.no_grad()
    def outputs(self, part: str) -> Iterator[tuple[Tensor, Any]]:
        """As in `Strategy`, one domain after another."""
        with evaluating(self.net):
            for domain in self.domains:
                evaluation = self._evaluation(domain, part)
                for outputs, targets in evaluation.outputs(self.net, self._forward(domain)):
                    yield outputs[None], [targets]

    def _forward(self, domain: str) -> Any:
        return lambda inputs: self.model({domain: inputs})[domain]

    def _evaluation(self, domain: str, part: str) -> Evaluation:
        if (domain, part) not in self._evaluations:
            self._evaluations[domain, part] = Evaluation(
                self._tasks[domain], part, self.device, self.fabric
            )
        return self._evaluations[domain, part]
