"""Many runs at once: networks of one architecture trained side by side."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from weightfold.core.arguments import device_of
from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.tensor_file import write_tensors
from weightfold.data import Augment, Data
from weightfold.files import locked
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train import checkpoint
from weightfold.train.callbacks import Callback, KeepBest, Report, SaveWeights
from weightfold.train.history import History, Row
from weightfold.train.logs import Bar
from weightfold.train.loop import REMEDY, Loop, NonFiniteLoss
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_run, describe, digest, write_run
from weightfold.train.seeding import as_seeds
from weightfold.train.starts import Start, begin
from weightfold.train.strategies.base import Strategy
from weightfold.train.strategies.fabric import Fabric, Single
from weightfold.train.strategies.stack import stackable
from weightfold.train.strategies.stacked import Stacked

SAVE_SECONDS = 20.0
"""Between checkpoints of a group."""
SMALL = 30_000
"""On a CPU networks of at most so many parameters, without convolutions, are run as one batch: the
others fill the cores alone (measured by `benchmarks/together.py`)."""

ALONE = ("lr_factors", "in_place")
"""Options of runs that are trained alone."""

Together = Literal["auto"] | int
SIDE_BY_SIDE = Options(at_start=True, save_seconds=SAVE_SECONDS, measure=("test",))


@dataclass(frozen=True)
class Run:
    """One of several runs.

    Attributes:
        net: With its initial weights; holds the final ones afterwards.
        data: The task, or data to classify; runs may share it, else theirs have equal sizes and
            shapes.
        seed: Of data order, augmentation and dropout.
        start: Another run that it starts from; None: the weights of `net`.
    """

    net: nn.Module
    data: Task | Data
    seed: int
    start: Start | None = None


def fit_together(
    runs: Mapping[str, Run],
    recipe: Recipe,
    *,
    folder: Path | str | None = None,
    together: Together = "auto",
    device: torch.device | str = "auto",
    progress: bool | Callable[[str, Row], None] = False,
    options: Options = SIDE_BY_SIDE,
) -> dict[str, History]:
    """Train networks of one architecture side by side.

    >>> import weightfold as wf
    >>> data = wf.data.load("digits,limit=100")
    >>> nets = [wf.nets.build("digitnet", num_classes=10, in_channels=1) for _ in range(2)]
    >>> runs = {f"run-{seed}": wf.train.Run(net, data, seed) for seed, net in enumerate(nets)}
    >>> list(wf.fit_together(runs, wf.Recipe(epochs=1, crop_padding=0, flip=False)))
    ['run-0', 'run-1']

    Every run sees what it would see alone: the order of an epoch depends on (seed, epoch), dropout
    on (seeds of those trained with it, step). Runs are trained in groups, a group as one vmapped
    batch, see `together`; a group of one as `fit` trains it. With `folder`, a call that was stopped
    goes on with its group where it was last saved and ends with the same weights, bit for bit on a
    CPU; finished groups are read.

    Args:
        runs: Name -> net, data and seed. Names are file names.
        recipe: Hyperparameters; crop and flip are for uint8 images only.
        folder: Holds a folder per group; None: nothing is written.
        together: Runs in a group; "auto": one if the network cannot be run as a batch, see
            `stackable`; else on a CPU all if it is small and has no convolution, else one; on an
            accelerator all.
        device: To train on; "auto": an accelerator if there is one.
        progress: True for a progress bar of each group's first run; or a function called with a
            run's name and each of its rows.
        options: How they are carried out; `validation`, `devices`, `precision`, `tensorboard` and
            `start` are those of `fit` alone.

    Returns:
        Name -> history, in the order of `runs`. A run whose loss became NaN or infinite is among
        them, with `failed` set; it spoils no other.

    Raises:
        FileExistsError: The folder holds other runs, or another process trains in it.
        ValueError: An argument is out of range, the networks are not of one architecture, or the
            task cannot be stacked.
    """
    if not runs:
        raise ValueError("runs is empty; give at least one run")
    _check(options, ("validation", "devices", "precision", "tensorboard", "start", *ALONE))
    device = device_of(device)
    runs = {
        name: replace(run, data=as_task(run.data).with_smoothing(recipe.label_smoothing))
        for name, run in _shared(runs).items()
    }
    first_run = next(iter(runs.values()))
    size = group_size(first_run.net, first_run.data, len(runs), together, device)
    names, histories = list(runs), {}
    for first in range(0, len(names), size):
        chosen = {name: runs[name] for name in names[first : first + size]}
        group = _Group(
            chosen,
            recipe,
            None if folder is None else Path(folder) / _group_name(list(chosen)),
            device,
            progress,
            options,
        )
        histories |= dict(zip(chosen, group.train(), strict=True))
    return histories


def _check(options: Options, names: tuple[str, ...]) -> None:
    """Refuse options that are those of `fit` alone."""
    for name in names:
        if (given := getattr(options, name)) != (usual := getattr(Options(), name)):
            raise ValueError(f"{name}={given!r} with several runs: it must be {usual!r}")


def _shared(runs: Mapping[str, Run]) -> dict[str, Run]:
    """With tasks; runs that share data share one task."""
    tasks = {id(run.data): as_task(run.data) for run in runs.values()}
    return {name: replace(run, data=tasks[id(run.data)]) for name, run in runs.items()}


def group_size(
    net: nn.Module,
    data: Task | Data,
    runs: int,
    together: Together,
    device: torch.device | str,
) -> int:
    """How many of `runs` runs of a network on such data are one batch, as `fit_together` says.

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
    return runs if stackable(copied(net).to(device), as_task(data), device) else 1


def _group_name(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}+{len(names) - 1}"


@dataclass
class _Group:
    """Runs that are trained as one batch, or a single one."""

    runs: Mapping[str, Run]
    recipe: Recipe
    folder: Path | None
    device: torch.device
    progress: bool | Callable[[str, Row], None]
    options: Options
    randomness: Literal["error", "different"] = "different"
    more: tuple[Callback, ...] = ()

    def train(self) -> tuple[History, ...]:
        """Train them, or read what they came to."""
        for run in self.runs.values():
            begin(run.net, run.start)
            if (told := as_task(run.data).dataset.preprocessing) is not None:
                told.attach(run.net)
        if self.folder is None:
            return self._train()
        configuration = self._configuration()
        if check_run(configuration, self.folder) and self.options.resume and self._ended():
            return self._train()
        with locked(self.folder):
            there = check_run(configuration, self.folder)
            if there and not self.options.resume:
                raise FileExistsError(
                    f"folder={str(self.folder)!r} already holds these runs; resume=True goes on"
                )
            write_run(self.folder, configuration, None, self.device)
            return self._train()

    def _ended(self) -> bool:
        """Whether the folder holds the runs to their end."""
        path = self.folder / checkpoint.LAST if self.folder is not None else None
        if path is None or not path.exists():
            return False
        saved = checkpoint.load_state(path, torch.device("cpu"))["runs"]
        return all(run["finished"] or run["failed"] for run in saved)

    def _train(self) -> tuple[History, ...]:
        strategy = self._strategy()
        callbacks = [*(make() for make in self.options.callbacks), *self.more]
        if self.folder is not None:
            callbacks.append(SaveWeights(self.folder, self.options.save_at))
        if callable(self.progress):
            callbacks.append(Report(self.progress))
        elif self.progress:
            callbacks.append(Bar())
        task = as_task(next(iter(self.runs.values())).data)
        return Loop(strategy, self.options, task.measures, self.folder, callbacks).run()

    def _strategy(self) -> Strategy:
        tasks = [as_task(run.data) for run in self.runs.values()]
        if len(self.runs) == 1:
            ((name, run),) = self.runs.items()
            place = self.device
            fabric = Fabric(accelerator=place.type, devices=[place.index] if place.index else 1)
            return Single(fabric, run.net, tasks[0], self.recipe, run.seed, name)
        nets = {name: run.net.to(self.device) for name, run in self.runs.items()}
        seeds = [run.seed for run in self.runs.values()]
        return Stacked(nets, tasks, seeds, self.recipe, self.randomness)

    def _configuration(self) -> dict[str, Any]:
        first = next(iter(self.runs.values()))
        return describe(
            first.net,
            self.recipe,
            seed=0,
            options=self.options,
            runs={
                name: {
                    "seed": run.seed,
                    "weights": digest(run.net),
                    "start": None if run.start is None else run.start.identity(),
                    "task": as_task(run.data).identity(),
                }
                for name, run in self.runs.items()
            },
        )


def fit_seeds(
    make_net: Callable[[int], nn.Module],
    data: Task | Data,
    recipe: Recipe,
    seeds: int | Sequence[int],
    *,
    folder: Path | str,
    device: torch.device | str = "auto",
    progress: bool | Callable[[Row], None] = True,
    options: Options | None = None,
) -> dict[int, History]:
    """Train one network per seed, all of them in each step.

    Each seed sees the data that `fit` would show it, and ends where `fit` would, up to rounding;
    folder/<seed> is what `fit` leaves, but for last.pt, which is of all seeds. A seed whose run is
    finished is not trained again. Seconds are wall time divided by the seeds trained.

    Worth it where a step is many small operations. On one core of a shared CPU, against one seed
    after another (`benchmarks/seeds.py`): DigitNet at batch 64 took 0.9, 1.2 and 1.6 times as many
    steps a second with 3, 5 and 10 seeds, expanded (CL, rate 4) 1.05, 1.5 and 2 or more. Networks
    whose convolutions fill the core get slower: SmallNet A on 32 x 32 images, 3 seeds, 0.65.

    Args:
        make_net: Gives the network of a seed, always of the same architecture, without dropout.
        data: As for `fit`.
        recipe: As for `fit`.
        seeds: Distinct; or how many, from 0.
        folder: Holds a folder per seed.
        device: As for `fit_together`.
        progress: As for `fit`; a function is called with each row of each seed.
        options: As for `fit`; `devices`, `precision`, `tensorboard`, `resume` and `save_at` are
            those of `fit` alone.

    Returns:
        Seed -> history.

    Raises:
        FileExistsError: A seed's folder holds another run, or another process trains in it.
        NonFiniteLoss: A seed's loss became NaN or infinite; nothing is written.
        RuntimeError: The network draws random numbers (dropout): torch says which.
        ValueError: Seeds repeat, an option is of `fit` alone, or the networks' outputs do not fit
            the task.
    """
    folder, options, task = Path(folder), options or Options(), as_task(data)
    seeds = as_seeds(seeds)
    _check(options, ("devices", "precision", "tensorboard", "resume", "save_at", *ALONE))
    task, place = task.with_smoothing(recipe.label_smoothing), device_of(device)
    found: dict[int, History] = {}
    runs: dict[str, Run] = {}
    records: dict[int, dict[str, Any]] = {}

    def is_finished(seed: int) -> bool:
        home = folder / str(seed)
        if check_run(records[seed], home) and (history := checkpoint.finished(home)) is not None:
            found[seed] = history
        return seed in found

    for seed in seeds:
        net, held = make_net(seed), task.hold_out(options.validation, seed)
        begin(net, options.start)
        records[seed] = describe(net, recipe, seed=seed, options=options, task=held.identity())
        if not is_finished(seed):
            held.check(net, batch_size=recipe.batch_size)
            runs[str(seed)] = Run(net, held, seed)
    with ExitStack() as stack:
        for name in runs:
            stack.enter_context(locked(folder / name))
        # By another process, just now.
        runs = {name: run for name, run in runs.items() if not is_finished(run.seed)}
        if runs:
            best = KeepBest()
            report = (lambda _, row: progress(row)) if callable(progress) else progress
            group = _Group(runs, recipe, None, place, report, options, "error", (best,))
            for history in _finished(group):
                run = runs[history.name]
                _write(folder, records[run.seed], run.net, best.state, history, place)
                found[run.seed] = replace(history, name="")
    return {seed: found[seed] for seed in seeds}


def _finished(group: _Group) -> tuple[History, ...]:
    """Train the seeds of a group, none of which may fail."""
    for run in group.runs.values():
        as_task(run.data).augmented(Augment(group.recipe.crop_padding, group.recipe.flip))
    histories = group.train()
    if failed := [history for history in histories if history.failed]:
        raise NonFiniteLoss(f"seed {failed[0].name} failed: {failed[0].failed}; {REMEDY}")
    return histories


def _write(
    folder: Path,
    record: Mapping[str, Any],
    net: nn.Module,
    best: Mapping[str, Mapping[str, torch.Tensor]],
    history: History,
    device: torch.device,
) -> None:
    """What `fit` leaves, in the folder of the history's name."""
    home = folder / history.name
    write_run(home, record, net, device)
    write_tensors(home / checkpoint.BEST_WEIGHTS, best[history.name])
    checkpoint.save_weights(net, home / checkpoint.LAST_WEIGHTS)
    checkpoint.write_history(home, replace(history, name=""))
