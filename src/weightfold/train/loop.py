"""The training loop: steps, measurements, checkpoints. What takes the steps is a strategy."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from math import inf, isfinite
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any

import torch
from torch import Tensor

from weightfold.tasks.measure import Measure
from weightfold.train import checkpoint
from weightfold.train.callbacks import Callback
from weightfold.train.context import Context
from weightfold.train.history import SELECTIONS, History, Row
from weightfold.train.options import Options
from weightfold.train.strategies.base import Columns, Strategy

PENDING_STEPS, PENDING_SECONDS = 20, 0.1
"""Steps whose losses are not read yet, at most; on a CPU also seconds. Reading them waits for the
device."""

REMEDY = "lower lr, add warmup_epochs or set clip_norm"


class NonFiniteLoss(ArithmeticError):
    """The loss, or a weight, became NaN or infinite; the last good checkpoint stays on disk."""


class Loop:
    """Trains the runs of a strategy to their end, or goes on with them.

    A run whose loss is not finite ends there, with `History.failed`; it spoils no other. Once none
    goes on, the loop ends, and what was saved before stays.

    Args:
        strategy: What takes the steps.
        options: How far, and when to measure, save and stop.
        measures: Of the task.
        folder: Where the checkpoint is; None: nowhere.
        callbacks: Called in their order.

    Raises:
        ValueError: More steps than the recipe's schedule has, or a part that the data has not.
    """

    def __init__(
        self,
        strategy: Strategy,
        options: Options,
        measures: tuple[Measure, ...],
        folder: Path | None,
        callbacks: Iterable[Callback],
    ) -> None:
        self._strategy, self._options, self._folder = strategy, options, folder
        self._callbacks = tuple(callbacks)
        self._marks = frozenset().union(*(callback.marks for callback in self._callbacks))
        self._following = [c for c in self._callbacks if type(c).on_step is not Callback.on_step]
        self._per_epoch = strategy.steps_per_epoch
        self._end = last_step(strategy, options)
        self._pending_seconds = PENDING_SECONDS if strategy.device.type == "cpu" else inf
        held_out = tuple(part for part in ("test", "validation") if part in strategy.parts)
        self._parts = held_out if options.measure is None else options.measure
        if missing := [part for part in self._parts if part not in strategy.parts]:
            raise ValueError(f"measure={missing[0]!r}: the data has {', '.join(strategy.parts)}")
        selection = SELECTIONS["validation" in self._parts]
        self._histories = [
            History((), selection, measures, name=name, steps_per_epoch=self._per_epoch)
            for name in strategy.names
        ]
        self._ended = [False] * len(strategy.names)
        self._step = 0
        self._lr: float | None = None
        self._clear()

    def run(self) -> tuple[History, ...]:
        """Train to the end; the history of each run, earlier sessions' rows included."""
        self._restore()
        devices = [self._strategy.device] if self._strategy.device.type == "cuda" else []
        with torch.random.fork_rng(devices), ExitStack() as stack:
            stack.callback(self._strategy.finish)
            for callback in self._callbacks:
                callback.on_start(self._context())
                stack.callback(lambda callback=callback: callback.on_end(self._context()))
            if not all(self._ended):
                self._train()
        return tuple(self._histories)

    def _context(self) -> Context:
        return Context(
            self._strategy.names,
            self._step,
            self._step // self._per_epoch,
            tuple(self._histories),
            tuple(self._ended),
            self._strategy,
        )

    def _train(self) -> None:
        strategy, batches = self._strategy, None
        pending: list[Tensor] = []
        self._saved = self._row_began = monotonic()
        if self._step == 0 and not self._histories[0].rows:
            self._mark()
            if self._options.at_start:
                self._measure()
        self._step_began = perf_counter()
        every = self._options.every or self._per_epoch
        for at in range(self._step, self._end):
            epoch, index = divmod(at, self._per_epoch)
            if batches is None or index == 0:
                strategy.begin_epoch(epoch)
                batches = strategy.batches(epoch, index)
            if index == 0 and strategy.recipe.reset_momentum_each_epoch:
                strategy.optimizer.state.clear()
            batch = next(batches)
            strategy.seed(at)
            self._lr = lr = strategy.lr(at)
            pending.append(strategy.step(batch, lr))
            self._step = at + 1
            measuring = self._step % every == 0 or self._step == self._end
            due = len(pending) == PENDING_STEPS or self._step in self._marks
            if due or measuring or perf_counter() - self._step_began > self._pending_seconds:
                self._collect(pending)
                pending = []
                if all(self._ended):
                    break
            if self._step in self._marks:
                self._mark()
            if measuring:
                self._measure()
                self._step_began = perf_counter()
                if all(self._ended):
                    break

    def _clear(self) -> None:
        """Begin the sums of a row."""
        strategy = self._strategy
        shape = (len(strategy.names), len(strategy.domains), 2 + len(strategy.scores))
        self._sums, self._times = torch.zeros(shape, dtype=torch.float64), []

    def _collect(self, pending: list[Tensor]) -> None:
        """Add steps up, note which run's loss is not finite, and call those who follow steps."""
        counts = torch.stack(pending).cpu().double()
        now = perf_counter()
        self._times.append((now - self._step_began) / len(pending))
        self._step_began = now
        for one in counts:  # in turn, so that sums do not depend on when they are read
            self._sums += one
        losses = counts[..., 1]
        if not losses.isfinite().all():
            self._note_failures(losses)
        if self._following:
            seen = self._strategy.domains
            last = {
                domain: (counts[:, 0, place, 1] / counts[:, 0, place, 0]).tolist()
                for place, domain in enumerate(seen)
            }
            shown = {domain: _last_known(values) for domain, values in last.items()}
            known = {domain: value for domain, value in shown.items() if value is not None}
            for callback in self._following:
                callback.on_step(self._context(), known, len(pending))

    def _note_failures(self, losses: Tensor) -> None:
        """`losses` (steps, runs, domains), summed over examples."""
        first = self._step - len(losses)
        for step, run, domain in (~losses.isfinite()).nonzero().tolist():
            if not self._ended[run]:
                at = first + step
                epoch, index = divmod(at, self._per_epoch)
                of = f" of {self._strategy.domains[domain]!r}" if len(losses[0, 0]) > 1 else ""
                self._fail(
                    run,
                    f"the loss{of} is {losses[step, run, domain].item()} in epoch {epoch + 1}, "
                    f"step {index + 1} of {self._per_epoch} (lr={self._strategy.lr(at):.3g})",
                )

    def _fail(self, run: int, why: str) -> None:
        self._ended[run] = True
        self._histories[run] = replace(self._histories[run], failed=why)
        if self._strategy.world > 1:
            # The other processes may not know it: none may wait for them.
            raise NonFiniteLoss(f"{why}; the last checkpoint stays; {REMEDY}")

    def _mark(self) -> None:
        if self._step in self._marks:
            for callback in self._callbacks:
                if self._step in callback.marks:
                    callback.at_mark(self._context())

    def _measure(self) -> None:
        """Make a row of each run that goes on, save, and see which runs have ended."""
        strategy, before = self._strategy, tuple(self._ended)
        found = [_columns(part, strategy.evaluate(part)) for part in self._parts]
        self._note_broken()
        self._rows(found, before)
        if all(history.failed for history in self._histories):
            return
        self._stop()
        if all(self._ended) and self._options.measure is None:
            self._complete(_columns("train", strategy.evaluate("train")))
        going = [name for name, ended in zip(strategy.names, before, strict=True) if not ended]
        context = self._context()
        for callback in self._callbacks:
            callback.on_measure(context)
        self._save()
        strategy.barrier()
        for callback in self._callbacks:
            callback.on_row(context, tuple(going))
        self._clear()
        self._row_began = monotonic()

    def _note_broken(self) -> None:
        """See whether a weight is no longer finite."""
        for run in range(len(self._ended)):
            tensors = {} if self._ended[run] else self._strategy.trained(run)
            broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
            if broken:
                epoch = -(-self._step // self._per_epoch)
                where = f"after step {self._step}, epoch {epoch}"
                self._fail(run, f"{broken[0]} is no longer finite {where}")

    def _rows(self, found: list[list[Columns]], ended: tuple[bool, ...]) -> None:
        """Make a row of each run that had not ended."""
        strategy = self._strategy
        trained = _trained(strategy, strategy.total(self._sums).cpu())
        now, count = monotonic(), len(strategy.names)
        for run in range(count):
            if ended[run]:
                continue
            values = {**trained[run], **strategy.columns()}
            for columns in found:
                values |= columns[run]
            row = Row(
                epoch=self._step // self._per_epoch,
                lr=self._lr,
                seconds=(now - self._row_began) / count,
                seconds_per_step=median(self._times) / count if self._times else None,
                values=values,
                step=self._step,
            )
            self._histories[run] = self._histories[run].extended(row)
            losses = [v for name, v in values.items() if "_loss" in name and v is not None]
            if not self._ended[run] and not all(map(isfinite, losses)):
                self._fail(run, f"the loss is not finite after step {self._step}")

    def _stop(self) -> None:
        """Note which runs have come to their end."""
        until = self._options.until
        for run, history in enumerate(self._histories):
            if self._ended[run]:
                continue
            if self._step == self._end or (until is not None and until(history)):
                self._ended[run] = True
                self._histories[run] = replace(history, finished=True)

    def _complete(self, columns: list[Columns]) -> None:
        for run, history in enumerate(self._histories):
            if history.finished:
                self._histories[run] = history.completed(columns[run])

    def _save(self) -> None:
        due = all(self._ended) or monotonic() - self._saved >= self._options.save_seconds
        if self._folder is None or not due or not self._strategy.first:
            return
        state = self._strategy.state_dict()
        if all(self._ended):
            state["optimizer"] = None
        runs = [
            {
                "rows": [row.flat() for row in history.rows],
                "failed": history.failed,
                "finished": history.finished,
            }
            for history in self._histories
        ]
        checkpoint.save_state(
            self._folder / checkpoint.LAST,
            {
                "step": self._step,
                "strategy": state,
                "runs": runs,
                "callbacks": {key: c.state for key, c in self._keyed().items() if c.state},
            },
        )
        self._saved = monotonic()

    def _restore(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self._folder is None or not (self._folder / checkpoint.LAST).exists():
            return
        path = self._folder / checkpoint.LAST
        state = checkpoint.load_state(path, self._strategy.device)
        with checkpoint.restoring(path):
            self._take(state)

    def _take(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self._strategy.load_state_dict(state["strategy"])
        self._step = state["step"]
        for run, saved in enumerate(state["runs"]):
            self._histories[run] = replace(
                self._histories[run],
                rows=tuple(Row.from_flat(row) for row in saved["rows"]),
                failed=saved["failed"],
                finished=saved["finished"],
            )
            self._ended[run] = bool(saved["failed"]) or saved["finished"]
        for key, callback in self._keyed().items():
            callback.state = state["callbacks"].get(key, {})

    def _keyed(self) -> dict[str, Callback]:
        """Each callback under its class and its place among those of that class."""
        found: dict[str, Callback] = {}
        for callback in self._callbacks:
            kind = type(callback).__name__
            place = sum(key.partition(" ")[0] == kind for key in found)
            found[f"{kind} {place}"] = callback
        return found


def last_step(strategy: Strategy, options: Options) -> int:
    """Steps in all.

    Raises:
        ValueError: More than the recipe's schedule has.
    """
    longest = strategy.epochs * strategy.steps_per_epoch
    if options.steps is None:
        return longest
    if options.steps > longest and strategy.recipe.schedule != "constant":
        raise ValueError(
            f"steps={options.steps} is beyond the {longest} steps of the recipe's schedule "
            f"{strategy.recipe.schedule!r}; raise epochs"
        )
    return options.steps


def _last_known(values: list[float]) -> float | None:
    """The last that is a number."""
    return next((value for value in reversed(values) if value == value), None)


def _columns(part: str, found: list[Columns]) -> list[Columns]:
    """Values under the names that they have in a row."""
    prefix = "train_eval" if part == "train" else part
    return [{f"{prefix}_{name}": value for name, value in columns.items()} for columns in found]


def _trained(strategy: Strategy, sums: Tensor) -> list[Columns]:
    """Of each run, the mean loss and scores of the examples trained on since the last row."""
    names = ("train_loss", *(f"train_{name}" for name in strategy.scores))
    rows: list[Columns] = []
    for run in sums.tolist():
        by_domain = {
            domain: {n: value / seen if seen else None for n, value in zip(names, v, strict=True)}
            for domain, (seen, *v) in zip(strategy.domains, run, strict=True)
        }
        rows.append(by_domain[""] if "" in by_domain else with_means(by_domain))
    return rows


def with_means(by_domain: dict[str, Any]) -> Columns:
    """Columns of the domains' means, and of each domain as "test_accuracy/birds"."""
    names = dict.fromkeys(name for columns in by_domain.values() for name in columns)
    found: Columns = {}
    for name in names:
        known = [v for c in by_domain.values() if (v := c.get(name)) is not None]
        found[name] = sum(known) / len(known) if known else None
    for domain, columns in by_domain.items():
        found |= {f"{name}/{domain}": value for name, value in columns.items()}
    return found
