"""Many runs at once: networks trained side by side on samples in memory, measured as they go."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.data import Augment
from weightfold.data.batches import generator_of
from weightfold.data.samples import Samples
from weightfold.files import locked
from weightfold.records import write_record
from weightfold.train.checkpoint import RUN, load_state, save_state, sessions_of
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, describe, digest, session, structure
from weightfold.train.runs import Observer, Point, Run, Start, View, logits_of
from weightfold.train.steps import mixed_seed
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
    until: Callable[[Run], bool] | None = None,
    observer: Callable[[], Observer] | None = None,
    together: Together = "auto",
    device: torch.device | str = "cpu",
    listen: Callable[[str, Point], None] | None = None,
) -> dict[str, Run]:
    """Train networks of one architecture side by side.

    Every run sees what it would see alone: the order of an epoch depends on (seed, epoch), dropout
    on (seeds of those trained with it, epoch). Runs are trained in groups, a group as one vmapped
    batch, see `together`. With `folder`, a call that was stopped goes on with its group where it
    was last saved and ends with the same weights, bit for bit on a CPU; finished groups are read.

    Args:
        starts: Name -> net, data and seed. Names are file names.
        recipe: Hyperparameters; crop and flip are for uint8 images only.
        folder: Holds a folder per group; None: nothing is written.
        measure: Parts of the data to measure in eval mode at each point.
        every: Steps between points; None: an epoch. The first point is before the first step.
        steps: Steps in all; None: recipe.epochs epochs. The schedule is the recipe's all the same.
        until: Ends a run early when true of it; a group goes on until all its runs have ended, a
            run's points end with its own end.
        observer: Makes an observer for each group.
        together: Runs in a group; "auto": one if the network cannot be run as a batch, see
            `stackable`; else on a CPU all if it is small and has no convolution, else one; on an
            accelerator all.
        device: To train on.
        listen: Called with a run's name and each of its points.

    Returns:
        Name -> run, in the order of `starts`. A run whose loss became NaN or infinite is among
        them, with `failed` set; it spoils no other.

    Raises:
        FileExistsError: The folder holds other runs, or another process trains in it.
        ValueError: An argument is out of range, or the networks are not of one architecture.
    """
    if not starts:
        raise ValueError("starts is empty; give at least one run")
    for name, value in (("every", every), ("steps", steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: give at least 1 optimizer step")
    first_start = next(iter(starts.values()))
    size = group_size(first_start.net, first_start.data, len(starts), together, device)
    names = list(starts)
    runs: dict[str, Run] = {}
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
            listen=listen,
        )
        runs |= group.run()
    return runs


def group_size(
    net: nn.Module, data: Samples, runs: int, together: Together, device: torch.device | str
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
        plain = net.deploy(net.default_context()) if isinstance(net, Charted) else net
        convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in plain.modules())
        if convolves or sum(p.numel() for p in plain.parameters()) > SMALL:
            return 1
    if runs == 1:
        return 1
    x = data.inputs(data.train.x[:8]).to(device)
    return runs if stackable(deepcopy(net).to(device), x) else 1


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
    until: Callable[[Run], bool] | None
    observer: Observer | None
    device: torch.device
    listen: Callable[[str, Point], None] | None

    def __post_init__(self) -> None:
        self._names = tuple(self.starts)
        self._data = _moved([start.data for start in self.starts.values()], self.device)
        sizes = {(len(d.train), d.shape) for d in self._data}
        if len(sizes) > 1:
            raise ValueError("the runs' training sets differ in size or shape; make them equal")
        self._augment = self._augmentation()
        self._size = len(self._data[0].train)
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
        self._points: list[list[Point]] = [[] for _ in self._names]
        self._failed = [""] * len(self._names)
        self._ended = [False] * len(self._names)
        self._seconds = 0.0

    def _augmentation(self) -> Augment | None:
        if not (self.recipe.crop_padding or self.recipe.flip):
            return None
        x = self._data[0].train.x
        if x.dtype != torch.uint8 or x.dim() != 4:
            raise ValueError(
                f"crop_padding={self.recipe.crop_padding}, flip={self.recipe.flip} in the recipe "
                f"are for uint8 images (N, C, H, W); for {x.dtype} {tuple(x.shape)} set 0 and False"
            )
        return Augment(self.recipe.crop_padding, self.recipe.flip)

    def run(self) -> dict[str, Run]:
        nets = [start.net for start in self.starts.values()]
        for net in nets:
            net.to(self.device)
        configuration = self._configuration(nets)
        stack = Stack(nets, self.recipe)
        step = self._step(configuration, stack)
        if not all(self._ended):
            with (
                nullcontext() if self.folder is None else locked(self.folder),
                torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
            ):
                step = self._step(configuration, stack)  # another process may have gone on
                if not all(self._ended):
                    if self.folder is not None:
                        _write_run(self.folder, configuration, self.device)
                    self._train(stack, step)
        stack.fill(nets)
        return dict(zip(self._names, self._runs(), strict=True))

    def _step(self, configuration: Mapping[str, Any], stack: Stack) -> int:
        """Restore what the folder holds; the step it was left at."""
        if self.folder is None or not check_same(configuration, self.folder):
            return 0
        if not (self.folder / STATE).exists():
            return 0
        return self._restore(stack, load_state(self.folder / STATE, self.device))

    def _configuration(self, nets: list[nn.Module]) -> dict[str, Any]:
        return describe(
            nets[0],
            self.recipe,
            seed=0,
            validation=0,
            precision="32-true",
            about={},
            structure=structure(nets[0]),
            runs={
                name: {"seed": s.seed, "weights": digest(s.net), "data": s.data.digest}
                for name, s in self.starts.items()
            },
            measured={"parts": self.measure, "every": self.every, "steps": self.steps},
        )

    def _train(self, stack: Stack, step: int) -> None:
        begin, saved = perf_counter() - self._seconds, monotonic()
        tally, seen = torch.zeros(stack.count, 2, dtype=torch.float64), 0
        if not self._points[0]:
            self._look(stack, 0, tally, 0)
        for at in range(step, self._end):
            x, y = self._batch(at)
            self._seed(mixed_seed(*(s.seed for s in self.starts.values()), at))
            if self.recipe.reset_momentum_each_epoch and at % self._per_epoch == 0:
                stack.optimizer.state.clear()
            one = stack.step(x, y, self.recipe.lr_at(at, self._per_epoch))
            self._note_failures(one, at)
            tally += one
            seen += y.shape[1]
            if (at + 1) % (self.every or self._per_epoch) == 0 or at + 1 == self._end:
                self._look(stack, at + 1, tally, seen)
                tally, seen = torch.zeros_like(tally), 0
                self._seconds = perf_counter() - begin
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

    def _batch(self, at: int) -> tuple[Tensor, Tensor]:
        epoch, index = divmod(at, self._per_epoch)
        if index == 0 or not hasattr(self, "_orders"):
            self._orders = [self._order(start.seed, epoch) for start in self.starts.values()]
        part = slice(index * self.recipe.batch_size, (index + 1) * self.recipe.batch_size)
        inputs, labels = [], []
        for data, (order, draws) in zip(self._data, self._orders, strict=True):
            x = data.train.x.index_select(0, order[part])
            if self._augment is not None:
                x = self._augment.apply(x, draws[part])
            inputs.append(data.inputs(x))
            labels.append(data.train.y.index_select(0, order[part]))
        return torch.stack(inputs), torch.stack(labels)

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
        """Measure, tell observer and listener, and note which runs have ended."""
        scores = {part: _scores(stack, self._data, part) for part in self.measure}
        for i, points in enumerate(self._points):
            if self._ended[i]:
                continue
            loss, wrong = (tally[i] / seen).tolist() if seen else (None, None)
            points.append(
                Point(
                    step,
                    loss,
                    wrong,
                    {part: both[i][0] for part, both in scores.items()},
                    {part: both[i][1] for part, both in scores.items()},
                )
            )
            if not all(map(isfinite, points[-1].losses.values())):
                self._failed[i] = f"its loss was not finite after step {step}"
                self._ended[i] = True
            if self.listen is not None:
                self.listen(self._names[i], points[-1])
        if self.observer is not None:
            latest = tuple(points[-1] for points in self._points)
            view = View(self._names, step, step // self._per_epoch, latest, stack, self._data)
            self.observer.see(view)
        if self.until is not None:
            for i, run in enumerate(self._runs()):
                self._ended[i] = self._ended[i] or self.until(run)

    def _runs(self) -> list[Run]:
        seconds = self._seconds / len(self._names)
        return [
            Run(name, tuple(points), self._per_epoch, failed, seconds)
            for name, points, failed in zip(self._names, self._points, self._failed, strict=True)
        ]

    def _save(self, stack: Stack, step: int) -> None:
        if self.folder is None:
            return
        state = {
            "step": step,
            "stack": stack.state_dict(),
            "points": [[asdict(point) for point in points] for points in self._points],
            "failed": self._failed,
            "ended": self._ended,
            "seconds": self._seconds,
            "observer": self.observer.state if self.observer is not None else {},
        }
        if all(self._ended):
            state["stack"]["optimizer"] = None
        save_state(self.folder / STATE, state)

    def _restore(self, stack: Stack, state: Mapping[str, Any]) -> int:
        self._points = [[Point(**point) for point in points] for points in state["points"]]
        self._failed, self._ended = list(state["failed"]), list(state["ended"])
        self._seconds = state["seconds"]
        if self.observer is not None:
            self.observer.state = dict(state["observer"])
        stack.load_state_dict(state["stack"])
        return state["step"]


def _moved(data: list[Samples], device: torch.device) -> tuple[Samples, ...]:
    """Each on the device, those that are one object once."""
    moved = {key: one.to(device) for key, one in {id(one): one for one in data}.items()}
    return tuple(moved[id(samples)] for samples in data)


def _write_run(folder: Path, configuration: Mapping[str, Any], device: torch.device) -> None:
    sessions = [*sessions_of(folder), session(device)]
    write_record(folder / RUN, {"sessions": sessions, "configuration": configuration})


def _scores(stack: Stack, data: tuple[Samples, ...], part: str) -> list[tuple[float, float]]:
    """(mean loss, accuracy) of each run on a part of its data."""
    sums, seen = torch.zeros(stack.count, 2, dtype=torch.float64), 0
    for logits, labels in logits_of(stack, data, part):
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1)
        right = (logits.argmax(dim=2) == labels).sum(dim=1)
        sums += torch.stack([losses, right], dim=1).cpu().double()
        seen += labels.shape[1]
    return [(loss, right) for loss, right in (sums / seen).tolist()]
