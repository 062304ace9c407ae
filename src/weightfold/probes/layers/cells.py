"""A trained network tested with one unit at a time set back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.core.copying import copied
from weightfold.core.slots import split_name
from weightfold.data import Dataset
from weightfold.files import locked
from weightfold.probes.layers.batch_norm import BATCH, Policy, recalibrate, running_statistics
from weightfold.probes.layers.finding import finite
from weightfold.probes.layers.measurements import DRAWN, Cell
from weightfold.probes.layers.networks import Network
from weightfold.probes.layers.units import Unit, kept_tensors
from weightfold.probes.models import Model, fresh, redraw
from weightfold.records import read_record, write_record
from weightfold.tasks.outputs import tensor_of
from weightfold.train.checkpoint import RUN
from weightfold.train.record import check_same, digest, structure
from weightfold.train.seeding import mixed_seed
from weightfold.train.starts import Start, begin

CALIBRATION = 1000
"""Training examples that running statistics are re-estimated on for each test, at most."""

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
        samples: Tested on their test set; on the device of the networks.
        draws: Times that each unit is drawn anew.
        net: Of which new weights are drawn.
    """

    units: tuple[Unit, ...]
    bn: Policy
    samples: Dataset
    draws: int
    net: Model

    @cached_property
    def calibration(self) -> Dataset:
        """Training examples to recalibrate with."""
        return self.samples.limited(train=CALIBRATION)

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
    return evaluate(net, bench.samples)


@torch.no_grad()
def evaluate(net: nn.Module, samples: Dataset) -> tuple[float, float | None]:
    """Share of test examples that are wrong, and mean loss; None if that is not finite.

    Logits that are not finite are wrong.

    Args:
        net: On the device of `samples`; put in eval mode.
        samples: To test on.
    """
    net.eval()
    wrong, loss = 0, 0.0
    for x, y in zip(
        samples.test.inputs.split(BATCH), samples.test.targets.split(BATCH), strict=True
    ):
        logits = tensor_of(net(samples.normalize(x)))
        right = (logits.argmax(dim=1) == y) & logits.isfinite().all(dim=1)
        wrong += int((~right).sum())
        loss += F.cross_entropy(logits, y, reduction="sum").item()
    return wrong / len(samples.test), finite(loss / len(samples.test))


def _saved(network: Network, bench: Bench, drawn: Sequence[Draw], folder: Path) -> list[Cell]:
    net = copied(network.net)

    def digest_of(tensors: Tensors) -> str:
        return digest(begin(net, Start(tensors)))

    configuration: dict[str, Any] = {
        "bn": bench.bn,
        "data": bench.samples.digest,
        "structure": structure(net),
        "weights": {str(epoch): digest_of(tensors) for epoch, tensors in network.past.items()},
        "drawn anew": [digest_of(draw.tensors) for draw in drawn],
    }
    if not check_same(configuration, folder):
        write_record(folder / RUN, {"configuration": configuration})
    path = folder / CELLS
    if not path.exists():
        return []
    return [Cell(**cell) for cell in read_record(path, Cells)["cells"]]
