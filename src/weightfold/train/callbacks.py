"""What is done besides training while a run goes on."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from weightfold.core.tensor_file import write_tensors
from weightfold.train import checkpoint
from weightfold.train.context import Context
from weightfold.train.history import Row


class Callback:
    """Is called while runs are trained; its state is part of the checkpoint.

    A subclass keeps what it needs in `state`: name -> number, tensor, or nested dicts of them. It
    is called in every process.

    Attributes:
        marks: Steps after which `at_mark` is called; 0 is before the first.
    """

    marks: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def on_start(self, context: Context) -> None:
        """Training begins, or goes on; the state is restored."""

    def on_step(self, context: Context, losses: Mapping[str, float], count: int) -> None:
        """`count` more steps were taken; with each domain's latest loss, of the first run."""

    def at_mark(self, context: Context) -> None:
        """One of `marks` was reached."""

    def on_measure(self, context: Context) -> None:
        """A row was made of each run that goes on; called before a checkpoint is written."""

    def on_row(self, context: Context, names: tuple[str, ...]) -> None:
        """As `on_measure`, once all is on disk; with the names of the runs that have a new row."""

    def on_end(self, context: Context) -> None:
        """All runs have ended, or the loop is left by an exception."""


class KeepWeights(Callback):
    """Keeps every run's tensors after some steps or epochs: name -> step or epoch -> tensors.

    Args:
        at: Optimizer steps, or epochs.
        unit: Optimizer steps in one of them.
    """

    def __init__(self, at: Iterable[int], unit: int = 1) -> None:
        super().__init__()
        self._unit, self.marks = unit, frozenset(one * unit for one in at)

    def at_mark(self, context: Context) -> None:
        """Keep them."""
        for place, name in enumerate(context.names):
            state = context.strategy.state_of(place)
            tensors = {key: t.detach().to("cpu", copy=True) for key, t in state.items()}
            kept = self.state.get(name, {})
            self.state[name] = {**kept, context.step // self._unit: tensors}


class SaveWeights(Callback):
    """Writes every run's tensors after some steps as step-N.safetensors.

    Args:
        folder: Of the run; that of a run among several is below it, under its name.
        steps: Optimizer steps.
    """

    def __init__(self, folder: Path, steps: Iterable[int]) -> None:
        super().__init__()
        self._folder, self.marks = folder, frozenset(steps)

    def at_mark(self, context: Context) -> None:
        """Write them."""
        if not context.strategy.first:
            return
        for place, name in enumerate(context.names):
            folder = self._folder / name if len(context.names) > 1 else self._folder
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / checkpoint.step_weights(context.step)
            write_tensors(path, context.strategy.state_of(place))


class KeepBest(Callback):
    """Keeps each run's tensors at its best row: name -> tensors."""

    def on_measure(self, context: Context) -> None:
        """Keep them if the last row is the best."""
        for place, (name, history) in enumerate(zip(context.names, context.histories, strict=True)):
            if history.best is history.rows[-1] and history.rows[-1].step == context.step:
                state = context.strategy.state_of(place)
                self.state[name] = {key: tensor.clone() for key, tensor in state.items()}


class WriteRecord(Callback):
    """Writes last.safetensors and best.safetensors, metrics.csv and history.json of a single run.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def on_start(self, context: Context) -> None:
        """What the checkpoint has may not be in the record yet."""
        if context.strategy.first and context.histories[0].rows:
            checkpoint.write_history(self._folder, context.histories[0])

    def on_measure(self, context: Context) -> None:
        """The weights go before the checkpoint, which makes the steps count as done."""
        if not context.strategy.first:
            return
        (history,) = context.histories
        tensors = context.strategy.state_of(0)
        if history.best is history.rows[-1]:
            write_tensors(self._folder / checkpoint.BEST_WEIGHTS, tensors)
        write_tensors(self._folder / checkpoint.LAST_WEIGHTS, tensors)

    def on_row(self, context: Context, names: tuple[str, ...]) -> None:
        """The rows."""
        if context.strategy.first:
            checkpoint.write_history(self._folder, context.histories[0])


class Report(Callback):
    """Calls a function with each new row.

    Args:
        function: Takes a run's name and its row.
    """

    def __init__(self, function: Callable[[str, Row], None]) -> None:
        super().__init__()
        self._function = function

    def on_row(self, context: Context, names: tuple[str, ...]) -> None:
        """Call it."""
        if context.strategy.first:
            for name, row in zip(context.names, context.rows, strict=True):
                if name in names:
                    self._function(name, row)
