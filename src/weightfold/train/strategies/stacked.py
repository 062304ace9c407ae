"""Networks of one architecture that take each optimizer step together, as one vmapped batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold.data import Augment, Dataset
from weightfold.tasks.task import Task
from weightfold.train.evaluation import computed, judged
from weightfold.train.recipe import Recipe
from weightfold.train.strategies.base import Columns, Strategy
from weightfold.train.strategies.stack import Stack, Tensors, short

EVALUATION_BATCH, EVALUATION_VALUES = 1000, 2**22
"""Examples measured at once, at most, and the values of their inputs, about."""


class Stacked(Strategy):
    """Several networks, each on its own data.

    Args:
        nets: By name, of one architecture, on the device; `finish` fills them.
        tasks: Of each; one object where they share it.
        seeds: Of each: of data order, augmentation and dropout.
        recipe: Of all.
        randomness: As for `Stack`.

    Raises:
        ValueError: As `Stack`; or training sets of different sizes or shapes.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        tasks: Sequence[Task],
        seeds: Sequence[int],
        recipe: Recipe,
        randomness: Literal["error", "different"] = "different",
    ) -> None:
        self.names, self.recipe, self.seeds = tuple(nets), recipe, tuple(seeds)
        self._nets = tuple(nets.values())
        self._tasks = _moved(tasks, self.device)
        sizes = {(len(task.dataset.train), task.dataset.shape) for task in self._tasks}
        if len(sizes) > 1:
            raise ValueError("the runs' training sets differ in size or shape; make them equal")
        self.stack = Stack(self._nets, self._tasks[0], recipe, randomness)
        self.scores, self.optimizer = self.stack.scores, self.stack.optimizer
        self._batches = [
            task.batches(
                "train",
                self.device,
                batch_size=recipe.batch_size,
                seed=seed,
                augment=Augment(recipe.crop_padding, recipe.flip),
            )
            for task, seed in zip(self._tasks, seeds, strict=True)
        ]

    @property
    def device(self) -> torch.device:
        """As in `Strategy`."""
        return next(p.device for p in self._nets[0].parameters())

    @property
    def steps_per_epoch(self) -> int:
        """As in `Strategy`."""
        return len(self._batches[0])

    @property
    def parts(self) -> tuple[str, ...]:
        """As in `Strategy`."""
        return tuple(self._tasks[0].dataset.parts)

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """As in `Strategy`."""
        return zip(*(batches.epoch(epoch, first) for batches in self._batches), strict=True)

    def step(self, batch: Any, lr: float) -> Tensor:
        """As in `Strategy`."""
        inputs = torch.stack([inputs for inputs, _ in batch])
        targets = torch.stack([targets for _, targets in batch])
        return self.stack.step(inputs, targets, lr)[:, None]

    def evaluate(self, part: str) -> list[Columns]:
        """As in `Strategy`."""
        names = ("loss", *self.scores)
        sums = torch.zeros(self.stack.count, len(names), dtype=torch.float64)
        metrics, seen = [task.metrics() for task in self._tasks], 0
        for outputs, targets in self.outputs(part):
            rows = []
            for task, one, these, given in zip(self._tasks, outputs, targets, metrics, strict=True):
                found = judged(task, one, these)
                rows.append(torch.stack([found[name].sum() for name in names]))
                for metric in given.values():
                    metric.to(one.device).update(one, these)
            sums += torch.stack(rows).cpu().double()
            seen += targets.shape[1]
        means = [dict(zip(names, row, strict=True)) for row in (sums / seen).tolist()]
        return [{**mean, **computed(given)} for mean, given in zip(means, metrics, strict=True)]

    def outputs(self, part: str) -> Iterator[tuple[Tensor, Any]]:
        """As in `Strategy`."""
        parts = [task.dataset.parts[part] for task in self._tasks]
        shared = all(one.inputs is parts[0].inputs for one in parts)
        values = torch.Size(self._tasks[0].dataset.shape).numel()
        size = max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // max(1, values)))
        chosen = self._tasks[:1] if shared else self._tasks
        for order in torch.arange(len(parts[0]), device=self.device).split(size):
            inputs = [
                task.dataset.normalize(task.dataset.parts[part].inputs[order]) for task in chosen
            ]
            x = inputs[0] if shared else torch.stack(inputs)
            targets = torch.stack([one.targets_at(order) for one in parts])
            yield self.stack.outputs(x, shared=shared), targets

    def tensors(self, index: int) -> Tensors:
        """As in `Strategy`."""
        return {name: tensor.clone() for name, tensor in self.stack.of(index).items()}

    def state_of(self, index: int) -> Tensors:
        """As in `Strategy`."""
        own = self._nets[index].state_dict()
        return {name: own[name] for name in own} | {
            name: tensor for name, tensor in self.stack.of(index).items() if name in own
        }

    def trained(self, index: int) -> Mapping[str, Tensor]:
        """As in `Strategy`."""
        return {short(n): t[index] for n, t in self.stack.trained.items()}

    def state_dict(self) -> dict[str, Any]:
        """As in `Strategy`."""
        return self.stack.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As in `Strategy`."""
        self.stack.load_state_dict(state)

    def finish(self) -> None:
        """Give the networks their tensors."""
        self.stack.fill(self._nets)


def _moved(tasks: Sequence[Task], device: torch.device) -> tuple[Task, ...]:
    """Each on the device, data that are one object once."""
    given: dict[int, Dataset] = {id(task.dataset): task.dataset for task in tasks}
    there = {key: dataset.to(device) for key, dataset in given.items()}
    return tuple(replace(task, dataset=there[id(task.dataset)]) for task in tasks)
