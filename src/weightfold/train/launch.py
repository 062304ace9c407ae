"""A run in its folder, in one process or several: what `fit` and `fit_domains` share."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from weightfold.core.arguments import device_of
from weightfold.files import locked
from weightfold.hints import check_type
from weightfold.nets.registry import working_directory_importable
from weightfold.tasks.measure import Measure
from weightfold.train import checkpoint
from weightfold.train.callbacks import Callback, Report, SaveWeights, WriteRecord
from weightfold.train.history import History, Row
from weightfold.train.logs import Bar, TensorBoard
from weightfold.train.loop import REMEDY, Loop, NonFiniteLoss
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_run, write_run
from weightfold.train.strategies.fabric import Fabric, OnFabric

if TYPE_CHECKING:
    from lightning_fabric.strategies import DDPStrategy


@dataclass(frozen=True)
class Training(ABC):
    """A run, as it goes to every process; the fields are as for `fit`."""

    recipe: Recipe
    folder: Path | None
    configuration: Mapping[str, Any]
    """From `describe`."""
    seed: int
    progress: bool | Callable[[Row], None]
    options: Options

    @property
    @abstractmethod
    def measures(self) -> tuple[Measure, ...]:
        """Of the task."""

    @property
    def partial_steps(self) -> bool:
        """Whether steps leave some parameters out, which DDP must know."""
        return False

    @abstractmethod
    def check(self, net: nn.Module) -> None:
        """Refuse a net whose outputs do not fit, before any work."""

    @abstractmethod
    def strategy(self, fabric: Fabric, net: nn.Module) -> OnFabric:
        """What takes the steps, in one process."""

    def callbacks(self, first: bool) -> list[Callback]:
        """Those of one process."""
        options, folder = self.options, self.folder
        found = [make() for make in options.callbacks]
        if folder is not None:
            found += [WriteRecord(folder), SaveWeights(folder, options.save_at)]
        if not first:
            return found
        if folder is not None and options.tensorboard:
            found.append(TensorBoard(folder / "tensorboard"))
        if callable(report := self.progress):
            found.append(Report(lambda _, row: report(row)))
        elif report:
            found.append(Bar())
        return found


def run(training: Training, net: nn.Module, device: str) -> History:
    """Start or continue a run, as `fit` says, whose arguments these are.

    Raises:
        FileExistsError: As `fit`.
        NonFiniteLoss: As `fit`.
        ValueError: There is no such device.
    """
    check_type("device", device, Literal["auto", "cpu", "cuda", "mps"])
    device_of(device)
    options, folder = training.options, training.folder
    if folder is None and options.devices > 1:
        with tempfile.TemporaryDirectory() as temporary:
            return run(replace(training, folder=Path(temporary)), net, device)
    if folder is None or not (folder / checkpoint.RUN).exists():
        training.check(net)
    if folder is None:
        return _launch(training, net, device)
    if (history := _finished(training, net, folder)) is not None:
        return history
    with locked(folder):
        history = _finished(training, net, folder)  # another process may just have ended it
        return _launch(training, net, device) if history is None else history


def _finished(training: Training, net: nn.Module, folder: Path) -> History | None:
    """The history of the run, if the folder holds it to its end; its weights go to `net`."""
    if not check_run(training.configuration, folder):
        return None
    if not training.options.resume:
        raise FileExistsError(
            f"folder={str(folder)!r} already holds this run; resume=True continues it"
        )
    history = checkpoint.finished(folder)
    if history is not None:
        checkpoint.load_weights(net, folder / checkpoint.LAST_WEIGHTS)
    return history


def _launch(training: Training, net: nn.Module, device: str) -> History:
    options, folder = training.options, training.folder
    fabric = Fabric(
        accelerator=device,
        devices=options.devices,
        precision=options.precision,
        strategy="auto" if options.devices == 1 else _ddp(training.partial_steps),
    )
    home = next((p.device for p in net.parameters()), torch.device("cpu"))
    # Processes that are started find the modules that a user's network comes from.
    with _ending_children(), working_directory_importable():
        history = fabric.launch(partial(_process, training=training), net)
    net.to(home)
    if folder is not None and options.devices > 1:
        checkpoint.load_weights(net, folder / checkpoint.LAST_WEIGHTS)
        return checkpoint.load_history(folder / checkpoint.HISTORY)
    return history


def _ddp(partial_steps: bool) -> "DDPStrategy":
    from lightning_fabric.strategies import DDPStrategy

    return DDPStrategy(start_method="spawn", find_unused_parameters=partial_steps)


def _process(fabric: Fabric, net: nn.Module, *, training: Training) -> History | None:
    """One process of a run; the history where it is the only one, else it is in the folder.

    Raises:
        NonFiniteLoss: As `fit`.
    """
    first = fabric.is_global_zero
    if training.folder is not None and first:
        write_run(training.folder, training.configuration, net, fabric.device)
    strategy = training.strategy(fabric, net)
    loop = Loop(
        strategy, training.options, training.measures, training.folder, training.callbacks(first)
    )
    (history,) = loop.run()
    fabric.barrier()
    if history.failed:
        raise NonFiniteLoss(f"{history.failed}; the last checkpoint stays; {REMEDY}")
    return history if fabric.world_size == 1 else None


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
