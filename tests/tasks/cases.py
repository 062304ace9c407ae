"""One small problem a task, with a network that fits it: what every task's contract is tried on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from weightfold.data import Dataset, Examples
from weightfold.tasks import Task, build


@dataclass(frozen=True)
class Case:
    """A task, and its network of a seed."""

    task: Task
    net: Callable[[int], nn.Module]


def inputs(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def dataset(target: Callable[[torch.Tensor], torch.Tensor], classes: int = 0) -> Dataset:
    parts = [Examples(x, target(x)) for x in (inputs(48, 0), inputs(20, 1), inputs(12, 2))]
    return Dataset("made", parts[0], parts[1], classes, validation=parts[2])


def net(outputs: int) -> Callable[[int], nn.Module]:
    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, outputs))

    return make


CASES = {
    "classify": lambda: Case(
        build("classify", dataset(lambda x: (x[:, 0] > 0).long() + (x[:, 1] > 0), 3)), net(3)
    ),
    "regress": lambda: Case(build("regress", dataset(lambda x: x[:, :2] * 2 + 1)), net(2)),
    "multilabel": lambda: Case(
        build("multilabel", dataset(lambda x: (x[:, :3] > 0).long())), net(3)
    ),
}
