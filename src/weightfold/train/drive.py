"""The training loop, on Lightning Fabric, for every kind of training."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import nn

from weightfold.data import Batches, Dataset, ImageSet
from weightfold.files import locked
from weightfold.train import checkpoint
from weightfold.train.evaluate import count_correct
from weightfold.train.feed import evaluation_batches
from weightfold.train.history import SELECTIONS, History, Row
from weightfold.train.logs import watching
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, write_run
from weightfold.train.steps import Fabric, Feed, Steps, Trained

if TYPE_CHECKING:
    from lightning_fabric.strategies import DDPStrategy

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
H = TypeVar("H", bound=History)


@dataclass(frozen=True)
class Job(ABC, Generic[H]):
    """A run, as it goes to every process; the fields are as for `fit`."""

    recipe: Recipe
    folder: Path
    configuration: dict[str, Any]
    """From `describe`."""
    seed: int
    validation: int | float
    progress: bool | Callable[[Any], None]
    tensorboard: bool

    def __post_init__(self) -> None:
        if self.validation < 0:
            raise ValueError(
                f"validation={self.validation}: a number of images or a share, at least 0"
            )

    @property
    @abstractmethod
    def history_type(self) -> type[H]:
        """What the run leaves."""

    @property
    def partial_steps(self) -> bool:
        """Whether steps leave some parameters out, which DDP must know."""
        return False

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.recipe.epochs

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
    def measure(self, trained: Trained) -> dict[str, Any]:
        """The figures of a `Row` after an epoch, from what its steps reported and the test set."""

    @abstractmethod
    def final(self) -> dict[str, Any]:
        """The fields of the history that are filled in at the end of the run."""


class Accuracies:
    """Accuracies on one data set, over all processes.

    Args:
        steps: Whose network is measured.
        part: The data set's name in `steps.parts`.
        dataset: Its test set is measured.
        train: Its training images.
        held_out: Its validation images, if any.
    """

    def __init__(
        self,
        steps: Steps,
        part: str,
        dataset: Dataset,
        train: ImageSet,
        held_out: ImageSet | None,
    ) -> None:
        self._steps, self._part, self._dataset, self._train = steps, part, dataset, train
        self._test = self._batches(dataset.test)
        self._validation = None if held_out is None else self._batches(held_out)

    def now(self) -> dict[str, float | None]:
        """Fields `test_accuracy` and `validation_accuracy` of a `Row`."""
        validation = self._validation
        return {
            "test_accuracy": self._accuracy(self._test),
            "validation_accuracy": None if validation is None else self._accuracy(validation),
        }

    def train_error(self) -> float:
        """Share of the training images, as they are, that are misclassified."""
        return 1 - self._accuracy(self._batches(self._train))

    def _batches(self, images: ImageSet) -> Batches:
        return evaluation_batches(images, self._dataset, self._steps.fabric.device)

    def _accuracy(self, images: Batches) -> float:
        fabric = self._steps.fabric
        forward = partial(self._steps.forward, self._part)
        share = {"rank": fabric.global_rank, "world": fabric.world_size}
        counts = count_correct(self._steps.net, images, forward, **share)
        fabric.all_reduce(counts, reduce_op="sum")
        correct, seen = counts.tolist()
        return correct / seen


def run(
    job: Job[H],
    net: nn.Module,
    *,
    device: str,
    precision: Precision,
    devices: int,
    resume: bool,
) -> H:
    """Start or continue a run, as `fit` says, whose arguments these are.

    Raises:
        FileExistsError: As `fit`.
    """
    if (history := _finished(job, net, resume)) is not None:
        return history
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        precision=precision,
        strategy="auto" if devices == 1 else _ddp(job.partial_steps),
    )
    with locked(job.folder):
        if (history := _finished(job, net, resume)) is not None:
            return history  # by another process, just now
        home = next((p.device for p in net.parameters()), torch.device("cpu"))
        with _ending_children():
            fabric.launch(partial(_run, job=job), net)
        net.to(home)
        if devices > 1:
            checkpoint.load_weights(net, job.folder / checkpoint.LAST_WEIGHTS)
        return checkpoint.load_history(job.folder / checkpoint.HISTORY, job.history_type)


@contextmanager
def _ending_children() -> Iterator[None]:
    """Where the block raises, processes started in it are ended: none trains in a free folder."""
    before = active_children()
    try:
        yield
    except BaseException:
        started = [process for process in active_children() if process not in before]
        for process in started:
            process.terminate()
        for process in started:
            process.join()
        raise


def _finished(job: Job[H], net: nn.Module, resume: bool) -> H | None:
    """The history of the run, if the folder holds it to its end; its weights go to `net`."""
    if not check_same(job.configuration, job.folder):
        return None
    if not resume:
        raise FileExistsError(
            f"folder={str(job.folder)!r} already holds this run; resume=True continues it"
        )
    history = checkpoint.finished(job.folder, job.history_type)
    if history is not None:
        checkpoint.load_weights(net, job.folder / checkpoint.LAST_WEIGHTS)
    return history


def _ddp(partial_steps: bool) -> "DDPStrategy":
    from lightning_fabric.strategies import DDPStrategy

    return DDPStrategy(start_method="spawn", find_unused_parameters=partial_steps)


def _run(fabric: Fabric, net: nn.Module, *, job: Job) -> None:
    """One process of a run; what it reports is in the folder."""
    first = fabric.is_global_zero
    if first:
        write_run(job.folder, job.configuration, net, fabric.device)
    course = job.start(fabric, net)
    steps, batches, row_type = course.steps, course.batches, job.history_type.row_type
    history = job.history_type(
        _resume(steps, job.folder, row_type), SELECTIONS[bool(job.validation)]
    )
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        watching(
            job.progress if first else False,
            job.folder / "tensorboard" if job.tensorboard and first else None,
            epochs=job.epochs,
            steps=len(batches),
            done=len(history.rows),
            parts=steps.parts,
        ) as watch,
    ):
        for index in range(len(history.rows), job.epochs):
            start = time.perf_counter()
            trained = steps.epoch(index, batches, job.seed, watch)
            measured = course.measure(trained)
            row = row_type(
                epoch=index + 1,
                lr=trained.lr,
                seconds=time.perf_counter() - start,
                seconds_per_step=trained.seconds_per_step,
                **measured,
            )
            history = replace(history, rows=(*history.rows, row))
            if first:
                _save(steps, history, job.folder)
            fabric.barrier()
            watch.epoch(row)
        history = replace(history, **course.final())
    if first:
        checkpoint.write_history(job.folder, history)
    fabric.barrier()


def _save(steps: Steps, history: History, folder: Path) -> None:
    """Write an epoch's files: the weights before last.pt, which makes the epoch count as done."""
    if history.best_epoch == len(history.rows):
        checkpoint.save_weights(steps.net, folder / checkpoint.BEST_WEIGHTS)
    checkpoint.save_weights(steps.net, folder / checkpoint.LAST_WEIGHTS)
    state = {
        "net": steps.trained.state_dict(),
        "optimizer": steps.optimizer.state_dict(),
        "precision": steps.fabric.strategy.precision.state_dict(),
        "rows": [asdict(row) for row in history.rows],
    }
    checkpoint.save_state(folder / checkpoint.LAST, state)
    checkpoint.write_history(folder, history)


def _resume(steps: Steps, folder: Path, row_type: type[Row]) -> tuple[Row, ...]:
    """Restore the last whole epoch, if there is one; the rows so far."""
    path = folder / checkpoint.LAST
    if not path.exists():
        return ()
    state = checkpoint.load_state(path, steps.fabric.device)
    with checkpoint.restoring(path):
        steps.trained.load_state_dict(state["net"])
        steps.optimizer.load_state_dict(state["optimizer"])
        steps.fabric.strategy.precision.load_state_dict(state["precision"])
        return tuple(row_type(**row) for row in state["rows"])
