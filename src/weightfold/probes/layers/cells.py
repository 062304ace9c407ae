"""A trained network tested with one unit at a time set back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from weightfold.core.copying import copied
from weightfold.core.slots import split_name
from weightfold.data import Data, Dataset
from weightfold.files import locked
from weightfold.probes.layers.batch_norm import Policy, recalibrate, running_statistics
from weightfold.probes.layers.finding import finite
from weightfold.probes.layers.measurements import DRAWN, Cell, as_error
from weightfold.probes.layers.networks import Network
from weightfold.probes.layers.units import Unit, kept_tensors
from weightfold.probes.models import Model, fresh, redraw
from weightfold.records import read_record, write_record
from weightfold.tasks.classify import Classification
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.checkpoint import RUN
from weightfold.train.evaluation import Evaluation, judged
from weightfold.train.record import check_same, digest, structure
from weightfold.train.seeding import mixed_seed
from weightfold.train.starts import Start, begin

CALIBRATION = 1000
"""Training examples that running statistics are re-estimated on for each test, at most."""

WORST = 10.0
"""Times the trivial predictor's error: ours."""

CELLS = "cells.json"

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """New weights.

    Attributes:
        tensors: Of a whole network.
        units: Names of those that are drawn anew in it.
    """

    tensors: Tensors
    units: set[str]


@dataclass(frozen=True)
class Bench:
    """What a network's cells are measured with.

    Attributes:
        units: What is set back.
        bn: What becomes of running statistics.
        task: Tested on its test set; on the device of the networks.
        draws: Times that each unit is drawn anew.
        net: Of which new weights are drawn.
    """

    units: tuple[Unit, ...]
    bn: Policy
    task: Task
    draws: int
    net: Model

    @cached_property
    def calibration(self) -> Dataset:
        """Training examples to recalibrate with."""
        return self.task.dataset.limited(train=CALIBRATION)

    def cells_in(self, epochs: int) -> int:
        """How many cells a network has, whose weights are known at so many epochs."""
        return 1 + len(self.units) * (epochs - 1 + self.draws)


def measure_cells(
    network: Network, bench: Bench, folder: Path | None, hear: Callable[[int, str], None]
) -> list[Cell]:
    """The cells of a network, unit after unit.

    Args:
        network: Left unchanged.
        bench: What to measure with.
        folder: Where a stopped call goes on from, after the last unit that was finished.
        hear: Called with the number of cells measured and what is measured now.

    Raises:
        FileExistsError: The folder holds the cells of something else, or another process measures
            in it.
    """
    with nullcontext() if folder is None else locked(folder):
        return _measured(network, bench, folder, hear)


def _measured(
    network: Network, bench: Bench, folder: Path | None, hear: Callable[[int, str], None]
) -> list[Cell]:
    drawn = _drawn(network, bench)
    cells = [] if folder is None else _saved(network, bench, drawn, folder)
    done = {cell.unit for cell in cells}
    net = copied(network.net)
    for unit in (None, *bench.units):
        name = "" if unit is None else unit.name
        if name in done:
            continue
        for source, draw, tensors in _ways(unit, network, drawn):
            hear(len(cells), f"seed {network.seed}, {name or 'trained'}, {source}")
            error, loss = _test(net, network, unit, tensors, bench)
            cells.append(Cell(name, source, network.seed, draw, error, loss))
        if folder is not None:
            write_record(folder / CELLS, {"cells": [asdict(cell) for cell in cells]})
    hear(len(cells), f"seed {network.seed}")
    return cells


class Cells(TypedDict):
    """What the file of tested cells holds."""

    cells: list[Cell]


def redrawable(net: nn.Module, unit: Unit) -> bool:
    """Whether all layers of a unit can draw their weights anew themselves."""
    return all(
        callable(getattr(module, "reset_parameters", None))
        for module in _parts(net, unit)
        if next(module.parameters(recurse=False), None) is not None
    )


def _parts(net: nn.Module, unit: Unit) -> list[nn.Module]:
    """The modules that hold a unit's tensors; of a parametrized layer they lie inside it."""
    paths = dict.fromkeys(split_name(name)[0] for name in unit.tensors)
    return [net.get_submodule(path) for path in paths]


def _drawn(network: Network, bench: Bench) -> list[Draw]:
    drawn = []
    for draw in range(bench.draws):
        seed = mixed_seed("layer reset", network.seed, draw)
        if isinstance(bench.net, nn.Module):
            net = copied(network.net)
            units = [unit for unit in bench.units if redrawable(net, unit)]
            redraw(net, [part for unit in units for part in _parts(net, unit)], seed)
        else:
            net, units = fresh(bench.net, seed), list(bench.units)
        tensors = {name: tensor.detach() for name, tensor in kept_tensors(net).items()}
        drawn.append(Draw(tensors, {unit.name for unit in units}))
    return drawn


def _ways(
    unit: Unit | None, network: Network, drawn: Sequence[Draw]
) -> Iterator[tuple[int | str, int | None, Tensors]]:
    """Source, draw and tensors of a unit's cells; None is the trained network."""
    *earlier, last = network.past
    if unit is None:
        yield last, None, network.past[last]
        return
    for epoch in earlier:
        yield epoch, None, network.past[epoch]
    for index, draw in enumerate(drawn):
        if unit.name in draw.units:
            yield DRAWN, index, draw.tensors


def _test(
    net: nn.Module, network: Network, unit: Unit | None, source: Tensors, bench: Bench
) -> tuple[float, float | None]:
    """Error and loss with the unit's tensors from `source`; `net` is a copy to work in."""
    statistics = {n for names in running_statistics(net).values() for n in names}
    kept = set() if bench.bn == "source" else statistics
    layers = () if unit is None else tuple(name for name in unit.tensors if name not in kept)
    options = {"layers": layers, "to": source}
    begin(net, Start(network.net, through="reset", options=options))
    if bench.bn == "recalibrate" and statistics:
        recalibrate(net, bench.calibration)
    return evaluate(net, bench.task)


@torch.no_grad()
def evaluate(net: nn.Module, data: Task | Data) -> tuple[float, float | None]:
    """The error on the test set, see `as_error`, and the mean loss; None if that is not finite.

    An example whose outputs are not finite is wrong; where less is better it counts as `WORST`
    times the error of the trivial predictor.

    Args:
        net: On the device of the data; left as found.
        data: To test on.
    """
    task = as_task(data)
    measure = task.measure
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    evaluation = Evaluation(task, "test", device)
    if measure.of_part:
        found = evaluation.of(net)
        return as_error(measure, found[measure.name]), finite(found.get("loss"))
    worst = 1.0 if measure.share else WORST * abs(task.baseline())
    error, loss = 0.0, 0.0
    for outputs, targets in evaluation.outputs(net):
        values = judged(task, outputs, targets)
        errors = as_error(measure, values[measure.name])
        known = errors.isfinite()
        if isinstance(outputs, Tensor):
            known &= outputs.flatten(1).isfinite().all(dim=1)
        error += torch.where(known, errors, worst).sum().item()
        loss += values["loss"].sum().item() if "loss" in values else nan
    return error / len(task.dataset.test), finite(loss / len(task.dataset.test))


def _saved(network: Network, bench: Bench, drawn: Sequence[Draw], folder: Path) -> list[Cell]:
    net = copied(network.net)

    def digest_of(tensors: Tensors) -> str:
        return digest(begin(net, Start(tensors)))

    configuration: dict[str, Any] = {
        "bn": bench.bn,
        "data": bench.task.digest,
        "structure": structure(net),
        "weights": {str(epoch): digest_of(tensors) for epoch, tensors in network.past.items()},
        "drawn anew": [digest_of(draw.tensors) for draw in drawn],
    }
    if not isinstance(bench.task, Classification):
        configuration["task"] = bench.task.identity()
    if not check_same(configuration, folder):
        write_record(folder / RUN, {"configuration": configuration})
    path = folder / CELLS
    if not path.exists():
        return []
    return [Cell(**cell) for cell in read_record(path, Cells)["cells"]]
