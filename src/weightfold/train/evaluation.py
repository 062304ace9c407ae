"""A network's loss and measures on a part of its task's data."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.data import Data
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task, evaluating, naming_dtype

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def evaluate(
    net: nn.Module,
    data: Task | Data,
    part: str = "test",
    *,
    forward: Callable[[Tensor], Any] | None = None,
) -> dict[str, float]:
    """The mean loss ("loss") and every measure of the task, in eval mode.

    Args:
        net: Takes the task's inputs, float32 (B, ...), on its own device; left as found.
        data: The task, or data to classify.
        part: "test", "train" or "validation".
        forward: What to call, if not `net` itself, such as one of its domains.

    Returns:
        By name; without the loss if only the model computes it.

    Raises:
        KeyError: The data has no such part.
    """
    task = as_task(data)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    return Evaluation(task, part, device).of(net, forward)


class Evaluation:
    """A part of a task's data, on a device, to evaluate networks on.

    Args:
        task: The task.
        part: Of its data.
        device: Where the networks are.
        fabric: Of several processes, each of which takes its slice of every batch.
    """

    def __init__(
        self, task: Task, part: str, device: torch.device, fabric: "Fabric | None" = None
    ) -> None:
        self._task, self._batches, self._fabric = task, task.batches(part, device), fabric
        self._rank, self._world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
        self._device = device

    @torch.no_grad()
    def of(
        self, net: nn.Module, forward: Callable[[Tensor], Any] | None = None
    ) -> dict[str, float]:
        """As `evaluate`."""
        metrics = {name: metric.to(self._device) for name, metric in self._task.metrics().items()}
        sums: dict[str, list[Tensor]] = {}
        for outputs, targets in self.outputs(net, forward):
            for name, values in judged(self._task, outputs, targets).items():
                sums.setdefault(name, []).append(values.sum())
            sums.setdefault("", []).append(torch.tensor(float(len(targets))))
            for metric in metrics.values():
                metric.update(outputs, targets)
        means = self._means(sums)
        return means | computed(metrics)

    def outputs(
        self, net: nn.Module, forward: Callable[[Tensor], Any] | None = None
    ) -> Iterator[tuple[Tensor, Any]]:
        """What the task reads of the outputs, (B, ...), and the targets, batch by batch."""
        mine = slice(self._rank, None, self._world)
        # A Charted net folds its weights once for all batches.
        with evaluating(net), net.hold() if isinstance(net, Charted) else nullcontext():
            for inputs, targets in self._batches.epoch(0):
                if self._world > 1:
                    inputs, targets = inputs[mine], targets[mine]
                with naming_dtype(net):
                    outputs = (forward or net)(inputs)
                yield self._task.read(outputs), targets

    def _means(self, sums: dict[str, list[Tensor]]) -> dict[str, float]:
        # Sums of a batch are exact for counts; in float64 so is their sum.
        totals = torch.stack([torch.stack(values).cpu().double().sum() for values in sums.values()])
        if self._fabric is not None and self._world > 1:
            totals = totals.to(self._device)
            self._fabric.all_reduce(totals, reduce_op="sum")
        found = dict(zip(sums, totals.tolist(), strict=True))
        seen = found.pop("")
        return {name: value / seen for name, value in found.items()}


def judged(task: Task, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
    """The loss, unless only the model computes it, and the scores of each example: (B,)."""
    scores = task.scores(outputs, targets)
    return scores if task.model_computes_loss else {"loss": task.losses(outputs, targets), **scores}


def computed(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Values of a task's metrics, by measure; one metric may give several."""
    values = {name: metric.compute() for name, metric in metrics.items()}
    several = [v if isinstance(v, dict) else {name: v} for name, v in values.items()]
    return {name: float(value) for found in several for name, value in found.items()}
