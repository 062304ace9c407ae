"""Many runs at once: networks trained side by side on samples in memory, measured as they go."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.data import Augment, Data
from weightfold.data.batches import generator_of
from weightfold.files import write_json
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.checkpoint import RUN, load_state, save_state
from weightfold.train.evaluation import judged
from weightfold.train.history import SELECTIONS, History, Row
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, describe, digest, session
from weightfold.train.runs import Observer, Start, View, outputs_of
from weightfold.train.runs import together as stacked
from weightfold.train.steps import mean_scores, mixed_seed
from weightfold.train.strategies.stack import Stack, stackable

STATE = "state.pt"
SAVE_EVERY = 20.0
"""Seconds between checkpoints; a run never depends on when they were written."""
SMALL = 30_000
"""On a CPU networks of at most so many parameters, without convolutions, are run as one batch: the
others fill the cores alone (measured by `benchmarks/together.py`)."""


Together = Literal["auto"] | int


def train_together(
    starts: Mapping[str, Start],
    recipe: Recipe,
    *,
    folder: Path | None = None,
    measure: Sequence[str] = ("test",),
    every: int | None = None,
    steps: int | None = None,
    until: Callable[[History], bool] | None = None,
    observer: Callable[[], Observer] | None = None,
    together: Together = "auto",
    device: torch.device | str = "cpu",
    progress: Callable[[str, Row], None] | None = None,
) -> dict[str, History]:
    """Train networks of one architecture side by side.

    Every run sees what it would see alone: the order of an epoch depends on (seed, epoch), dropout
    on (seeds of those trained with it, epoch). Runs are trained in groups, a group as one vmapped
    batch, see `together`. With `folder`, a call that was stopped goes on with its group where it
    was last saved and ends with the same weights, bit for bit on a CPU; finished groups are read.

    Args:
        starts: Name -> net, data and seed. Names are file names.
        recipe: Hyperparameters; crop and flip are for uint8 images only.
        folder: Holds a folder per group; None: nothing is written.
        measure: Parts of the data to measure in eval mode at each row.
        every: Steps between rows; None: an epoch. The first row is before the first step.
        steps: Steps in all; None: recipe.epochs epochs. The schedule is the recipe's all the same.
        until: Ends a run early when true of it; a group goes on until all its runs have ended, a
            run's rows end with its own end.
        observer: Makes an observer for each group.
        together: Runs in a group; "auto": one if the network cannot be run as a batch, see
            `stackable`; else on a CPU all if it is small and has no convolution, else one; on an
            accelerator all.
        device: To train on.
        progress: Called with a run's name and each of its rows.

    Returns:
        Name -> history, in the order of `starts`. A run whose loss became NaN or infinite is among
        them, with `failed` set; it spoils no other.

    Raises:
        FileExistsError: The folder holds other runs.
        ValueError: An argument is out of range, or the networks are not of one architecture.
    """
    if not starts:
        raise ValueError("starts is empty; give at least one run")
    for name, value in (("every", every), ("steps", steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: give at least 1 optimizer step")
    starts = {name: replace(start, data=as_task(start.data)) for name, start in starts.items()}
    first_start = next(iter(starts.values()))
    size = group_size(first_start.net, first_start.data, len(starts), together, device)
    names = list(starts)
    runs: dict[str, History] = {}
    for first in range(0, len(names), size):
        chosen = {name: starts[name] for name in names[first : first + size]}
        group = _Group(
            starts=chosen,
            recipe=recipe,
            folder=None if folder is None else folder / _group_name(list(chosen)),
            measure=tuple(measure),
            every=every,
            steps=steps,
            until=until,
            observer=None if observer is None else observer(),
            device=torch.device(device),
            progress=progress,
        )
        runs |= group.run()
    return runs


def group_size(
    net: nn.Module,
    data: Task | Data,
    runs: int,
    together: Together,
    device: torch.device | str,
) -> int:
    """How many of `runs` runs of a network on such data are one batch, as `train_together` says.

    Raises:
        ValueError: `together` is below 1.
    """
    if together != "auto":
        if together < 1:
            raise ValueError(f"together={together}: give how many runs, at least 1, or 'auto'")
        return together
    if torch.device(device).type == "cpu":
        plain = net.deploy(net.somewhere()) if isinstance(net, Charted) else net
        convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in plain.modules())
        if convolves or sum(p.numel() for p in plain.parameters()) > SMALL:
            return 1
    if runs == 1:
        return 1
    return runs if stackable(deepcopy(net).to(device), as_task(data), device) else 1


def _group_name(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}+{len(names) - 1}"


@dataclass
class _Group:
    """Runs that are trained as one batch, as `train_together` was asked."""

    starts: Mapping[str, Start]
    recipe: Recipe
    folder: Path | None
    measure: tuple[str, ...]
    every: int | None
    steps: int | None
    until: Callable[[History], bool] | None
    observer: Observer | None
    device: torch.device
    progress: Callable[[str, Row], None] | None

    def __post_init__(self) -> None:
        self._names = tuple(self.starts)
        self._tasks = _moved([as_task(start.data) for start in self.starts.values()], self.device)
        data = [task.dataset for task in self._tasks]
        sizes = {(len(d.train), d.shape) for d in data}
        if len(sizes) > 1:
            raise ValueError("the runs' training sets differ in size or shape; make them equal")
        given = Augment(self.recipe.crop_padding, self.recipe.flip)
        self._augment = self._tasks[0].augmented(given)
        self._size = len(data[0].train)
        whole, rest = divmod(self._size, self.recipe.batch_size)
        # As in `training_batches`: too small a last batch is left out.
        self._per_epoch = whole + (2 * rest >= self.recipe.batch_size or whole == 0)
        longest = self.recipe.epochs * self._per_epoch
        self._end = longest if self.steps is None else self.steps
        if self._end > longest and self.recipe.schedule != "constant":
            raise ValueError(
                f"steps={self.steps} is beyond the {longest} steps of the recipe's schedule "
                f"{self.recipe.schedule!r}; raise epochs"
            )
        self._rows: list[list[Row]] = [[] for _ in self._names]
        self._lr: float | None = None
        self._failed = [""] * len(self._names)
        self._ended = [False] * len(self._names)
        self._since = perf_counter()

    def run(self) -> dict[str, History]:
        nets = [start.net for start in self.starts.values()]
        for net in nets:
            net.to(self.device)
        configuration = self._configuration(nets)
        stack = Stack(nets, self._tasks[0], self.recipe)
        step = 0
        if self.folder is not None:
            there = check_same(configuration, self.folder) and (self.folder / STATE).exists()
            if there:
                step = self._restore(stack, load_state(self.folder / STATE, self.device))
            if not (there and all(self._ended)):
                self.folder.mkdir(parents=True, exist_ok=True)
                _write_run(self.folder, configuration, self.device)
        if not all(self._ended):
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                self._train(stack, step)
        stack.fill(nets)
        return dict(zip(self._names, self._histories(), strict=True))

    def _configuration(self, nets: list[nn.Module]) -> dict[str, Any]:
        return describe(
            nets[0],
            self.recipe,
            seed=0,
            options=Options(),
            runs={
                name: {
                    "seed": start.seed,
                    "weights": digest(start.net),
                    "task": as_task(start.data).identity(),
                }
                for name, start in self.starts.items()
            },
            measured={"parts": self.measure, "every": self.every, "steps": self.steps},
        )

    def _train(self, stack: Stack, step: int) -> None:
        saved, self._since = monotonic(), perf_counter()
        tally, seen = torch.zeros(stack.count, stack.columns, dtype=torch.float64), 0
        if not self._rows[0]:
            self._look(stack, 0, tally, 0)
        for at in range(step, self._end):
            x, y = self._batch(at)
            self._seed(mixed_seed(*(s.seed for s in self.starts.values()), at))
            if self.recipe.reset_momentum_each_epoch and at % self._per_epoch == 0:
                stack.optimizer.state.clear()
            self._lr = self.recipe.lr_at(at, self._per_epoch)
            one = stack.step(x, y, self._lr)
            self._note_failures(one, at)
            tally += one
            seen += len(y[0])
            if (at + 1) % (self.every or self._per_epoch) == 0 or at + 1 == self._end:
                self._look(stack, at + 1, tally, seen)
                tally, seen = torch.zeros_like(tally), 0
                if all(self._ended):
                    break
                if self.folder is not None and monotonic() - saved > SAVE_EVERY:
                    self._save(stack, at + 1)
                    saved = monotonic()
        self._ended = [True] * stack.count
        self._save(stack, self._end)

    def _seed(self, seed: int) -> None:
        """Seed dropout; on a CPU without the search for accelerators of `torch.manual_seed`."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _batch(self, at: int) -> tuple[Tensor, Any]:
        epoch, index = divmod(at, self._per_epoch)
        if index == 0 or not hasattr(self, "_orders"):
            self._orders = [self._order(start.seed, epoch) for start in self.starts.values()]
        part = slice(index * self.recipe.batch_size, (index + 1) * self.recipe.batch_size)
        inputs, targets = [], []
        for task, (order, draws) in zip(self._tasks, self._orders, strict=True):
            x = next(iter(task.dataset.train.read([order[part]])))
            if self._augment is not None:
                x = self._augment.apply(x, draws[part])
            inputs.append(task.dataset.normalize(x))
            targets.append(task.dataset.train.targets_at(order[part]))
        return torch.stack(inputs), stacked(targets)

    def _order(self, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        generator = generator_of(seed, epoch)
        order = torch.randperm(self._size, generator=generator).to(self.device)
        if self._augment is None:
            return order, order
        return order, self._augment.draw(self._size, generator).to(self.device)

    def _note_failures(self, tally: Tensor, at: int) -> None:
        for i in (~tally[:, 0].isfinite()).nonzero()[:, 0].tolist():
            if not self._failed[i] and not self._ended[i]:
                epoch, index = divmod(at, self._per_epoch)
                self._failed[i] = f"its loss was not finite in epoch {epoch + 1}, step {index + 1}"
                self._ended[i] = True

    def _look(self, stack: Stack, step: int, tally: Tensor, seen: int) -> None:
        """Measure, show observer and progress, and note which runs have ended."""
        found = {part: _evaluated(stack, self._tasks, part) for part in self.measure}
        names = ("loss", *mean_scores(self._tasks[0]))
        seconds = self._lap()
        for i, rows in enumerate(self._rows):
            if self._ended[i]:
                continue
            means = (tally[i] / seen).tolist() if seen else [None] * len(names)
            values = {f"train_{name}": mean for name, mean in zip(names, means, strict=True)}
            for part, evaluated in found.items():
                column = "train_eval" if part == "train" else part
                values |= {f"{column}_{name}": value for name, value in evaluated[i].items()}
            rows.append(
                Row(
                    epoch=step // self._per_epoch,
                    lr=self._lr,
                    seconds=seconds,
                    seconds_per_step=None,
                    values=values,
                    step=step,
                )
            )
            losses = [values.get(f"{part}_loss") for part in ("test", "validation", "train_eval")]
            if not all(loss is None or isfinite(loss) for loss in losses):
                self._failed[i] = f"its loss was not finite after step {step}"
                self._ended[i] = True
            if self.progress is not None:
                self.progress(self._names[i], rows[-1])
        if self.observer is not None:
            latest = tuple(rows[-1] for rows in self._rows)
            view = View(self._names, step, step // self._per_epoch, latest, stack, self._tasks)
            self.observer.see(view)
        if self.until is not None:
            for i, history in enumerate(self._histories()):
                self._ended[i] = self._ended[i] or self.until(history)

    def _lap(self) -> float:
        """Seconds since the last measurement, divided by the runs."""
        before, self._since = self._since, perf_counter()
        return (self._since - before) / len(self._names)

    def _histories(self) -> list[History]:
        return [
            History(
                tuple(rows),
                SELECTIONS["validation" in self.measure],
                self._tasks[0].measures,
                finished=ended,
                failed=failed,
                name=name,
                steps_per_epoch=self._per_epoch,
            )
            for name, rows, ended, failed in zip(
                self._names, self._rows, self._ended, self._failed, strict=True
            )
        ]

    def _save(self, stack: Stack, step: int) -> None:
        if self.folder is None:
            return
        state = {
            "step": step,
            "stack": stack.state_dict(),
            "rows": [[row.flat() for row in rows] for rows in self._rows],
            "failed": self._failed,
            "ended": self._ended,
            "observer": self.observer.state if self.observer is not None else {},
        }
        if all(self._ended):
            state["stack"]["optimizer"] = None
        save_state(self.folder / STATE, state)

    def _restore(self, stack: Stack, state: Mapping[str, Any]) -> int:
        self._rows = [[Row.from_flat(row) for row in rows] for rows in state["rows"]]
        self._failed, self._ended = list(state["failed"]), list(state["ended"])
        if self.observer is not None:
            self.observer.state = dict(state["observer"])
        stack.load_state_dict(state["stack"])
        return state["step"]


def _moved(tasks: list[Task], device: torch.device) -> tuple[Task, ...]:
    """Each on the device, data that are one object once."""
    there = {id(task.dataset): task.dataset for task in tasks}
    there = {key: dataset.to(device) for key, dataset in there.items()}
    return tuple(replace(task, dataset=there[id(task.dataset)]) for task in tasks)


def _write_run(folder: Path, configuration: Mapping[str, Any], device: torch.device) -> None:
    path = folder / RUN
    sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.exists() else []
    write_json(path, {"sessions": [*sessions, session(device)], "configuration": configuration})


def _evaluated(stack: Stack, tasks: tuple[Task, ...], part: str) -> list[dict[str, float]]:
    """Mean loss and measures of each run on a part of its data."""
    sums = torch.zeros(stack.count, stack.columns, dtype=torch.float64)
    metrics = [task.metrics() for task in tasks]
    seen, names = 0, ("loss", *mean_scores(tasks[0]))
    for outputs, targets in outputs_of(stack, tasks, part):
        found = [judged(tasks[0], one, these) for one, these in zip(outputs, targets, strict=True)]
        sums += torch.stack(
            [torch.stack([one[name].sum() for name in names]).cpu().double() for one in found]
        )
        for given, one, these in zip(metrics, outputs, targets, strict=True):
            for metric in given.values():
                metric.to(one.device).update(one, these)
        seen += len(targets[0])
    means = [dict(zip(names, row, strict=True)) for row in (sums / seen).tolist()]
    return [
        mean | {name: float(metric.compute()) for name, metric in given.items()}
        for mean, given in zip(means, metrics, strict=True)
    ]
