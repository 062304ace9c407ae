"""The training loop, on Lightning Fabric, for every kind of training."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from weightfold.tasks.measure import Measure
from weightfold.train import checkpoint
from weightfold.train.history import SELECTIONS, History, Row, Values
from weightfold.train.logs import watching
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, write_run
from weightfold.train.steps import Fabric, Feed, Steps, Trained

if TYPE_CHECKING:
    from lightning_fabric.strategies import DDPStrategy


@dataclass(frozen=True)
class Job(ABC):
    """A run, as it goes to every process; the fields are as for `fit`."""

    recipe: Recipe
    folder: Path
    configuration: dict[str, Any]
    """From `describe`."""
    seed: int
    progress: bool | Callable[[Any], None]
    tensorboard: bool

    @property
    @abstractmethod
    def measures(self) -> tuple[Measure, ...]:
        """Of the task."""

    @property
    @abstractmethod
    def selects_on_validation(self) -> bool:
        """Whether there is a validation part."""

    @property
    def partial_steps(self) -> bool:
        """Whether steps leave some parameters out, which DDP must know."""
        return False

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.recipe.epochs

    @abstractmethod
    def check(self, net: nn.Module) -> None:
        """Refuse a net whose outputs do not fit, before any work."""

    @abstractmethod
    def start(self, fabric: Fabric, net: nn.Module) -> "Course":
        """One process's part of the run."""


class Course(ABC):
    """A run in one process.

    Args:
        steps: What trains.
        batches: On what.
    """

    def __init__(self, steps: Steps, batches: Feed) -> None:
        self.steps, self.batches = steps, batches

    @abstractmethod
    def measure(self, trained: Trained) -> Values:
        """The values of a `Row` after an epoch, from what its steps reported and an evaluation."""

    @abstractmethod
    def final(self) -> Values:
        """The values that the last row gets at the end of the run."""


def run(
    job: Job,
    net: nn.Module,
    *,
    device: str,
    options: Options,
) -> History:
    """Start or continue a run, as `fit` says, whose arguments these are.

    Raises:
        FileExistsError: As `fit`.
    """
    last = job.folder / checkpoint.LAST_WEIGHTS
    if check_same(job.configuration, job.folder):
        if not options.resume:
            raise FileExistsError(
                f"folder={str(job.folder)!r} already holds this run; resume=True continues it"
            )
        history = checkpoint.finished(job.folder)
        if history is not None:
            checkpoint.load_weights(net, last)
            return history
    job.check(net)
    fabric = Fabric(
        accelerator=device,
        devices=options.devices,
        precision=options.precision,
        strategy="auto" if options.devices == 1 else _ddp(job.partial_steps),
    )
    home = next((p.device for p in net.parameters()), torch.device("cpu"))
    fabric.launch(partial(_run, job=job), net)
    net.to(home)
    if options.devices > 1:
        checkpoint.load_weights(net, last)
    return checkpoint.load_history(job.folder / checkpoint.HISTORY)


def _ddp(partial_steps: bool) -> "DDPStrategy":
    from lightning_fabric.strategies import DDPStrategy

    return DDPStrategy(start_method="spawn", find_unused_parameters=partial_steps)


def _run(fabric: Fabric, net: nn.Module, *, job: Job) -> None:
    """One process of a run; what it reports is in the folder."""
    first = fabric.is_global_zero
    if first:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_run(job.folder, job.configuration, net, fabric.device)
    course = job.start(fabric, net)
    steps, batches = course.steps, course.batches
    rows, selection = _resume(steps, job.folder), SELECTIONS[job.selects_on_validation]
    history = History(rows, selection, job.measures, steps_per_epoch=len(batches))
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        watching(
            job.progress if first else False,
            job.folder / "tensorboard" if job.tensorboard and first else None,
            epochs=job.epochs,
            steps=len(batches),
            done=len(history.rows),
            parts=steps.parts,
            measure=job.measures[0],
        ) as watch,
    ):
        for index in range(len(history.rows), job.epochs):
            start = time.perf_counter()
            trained = steps.epoch(index, batches, job.seed, watch)
            values = dict(course.measure(trained))
            if index + 1 == job.epochs:
                values |= course.final()
            row = Row(
                epoch=index + 1,
                lr=trained.lr,
                seconds=time.perf_counter() - start,
                seconds_per_step=trained.seconds_per_step,
                values=values,
                step=(index + 1) * len(batches),
            )
            history = replace(history.extended(row), finished=index + 1 == job.epochs)
            if first:
                _save(steps, history, job.folder)
            fabric.barrier()
            watch.epoch(row)


def _save(steps: Steps, history: History, folder: Path) -> None:
    """Write an epoch's files: the weights before last.pt, which makes the epoch count as done."""
    if history.best_epoch == len(history.rows):
        checkpoint.save_weights(steps.net, folder / checkpoint.BEST_WEIGHTS)
    checkpoint.save_weights(steps.net, folder / checkpoint.LAST_WEIGHTS)
    state = {
        "net": steps.trained.state_dict(),
        "optimizer": steps.optimizer.state_dict(),
        "precision": steps.fabric.strategy.precision.state_dict(),
        "rows": [row.flat() for row in history.rows],
    }
    checkpoint.save_state(folder / checkpoint.LAST, state)
    checkpoint.write_history(folder, history)


def _resume(steps: Steps, folder: Path) -> tuple[Row, ...]:
    """Restore the last whole epoch, if there is one; the rows so far."""
    path = folder / checkpoint.LAST
    if not path.exists():
        return ()
    state = checkpoint.load_state(path, steps.fabric.device)
    steps.trained.load_state_dict(state["net"])
    steps.optimizer.load_state_dict(state["optimizer"])
    steps.fabric.strategy.precision.load_state_dict(state["precision"])
    return tuple(Row.from_flat(row) for row in state["rows"])
