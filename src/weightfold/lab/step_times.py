"""How long a training step of each of several networks takes, steps taken in turn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from weightfold.data import Augment
from weightfold.lab.executors.base import RunExecutor
from weightfold.tasks.task import Task
from weightfold.timing import alternate
from weightfold.train import Recipe
from weightfold.train.optimizer import make_optimizer

WARMUP_STEPS, TIMED_STEPS = 5, 30


def step_seconds(nets: Mapping[str, nn.Module], task: Task, recipe: Recipe) -> dict[str, float]:
    """Median wall time of a training step of each network, their steps taken in turn.

    A step is forward, backward and optimizer on one batch that is there already. It trains the
    networks given: pass some that are not needed afterwards.

    Args:
        nets: By name.
        task: Gives the loss; its first training batch is used.
        recipe: Gives batch size and optimizer.
    """
    device = device_of_fit()
    augment = Augment(recipe.crop_padding, recipe.flip)
    options = {"batch_size": recipe.batch_size, "augment": augment}
    task = task.with_smoothing(recipe.label_smoothing)
    inputs, targets = next(iter(task.batches("train", device, **options).epoch(0)))

    def stepper(net: nn.Module) -> Any:
        net.to(device).train()
        optimizer = make_optimizer(net.parameters(), recipe, recipe.weight_decay)

        def step() -> float:
            optimizer.zero_grad()
            loss = task.objective(net, inputs, targets).losses.mean()
            loss.backward()
            optimizer.step()
            return loss.item()  # waits for the device

        return step

    steppers = {name: stepper(net) for name, net in nets.items()}
    latencies = alternate(steppers, warmup=WARMUP_STEPS, repeats=TIMED_STEPS)
    return {name: latency.median_ms / 1000 for name, latency in latencies.items()}


def device_of_fit() -> torch.device:
    """Where `fit` trains with device="auto"."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@contextmanager
def threads_of(executor: RunExecutor) -> Iterator[None]:
    """As many threads of torch as each of an executor's workers has."""
    before = torch.get_num_threads()
    if executor.threads is not None:
        torch.set_num_threads(executor.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
