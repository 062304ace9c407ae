"""What a net says about itself: parameters, costs, and how far layer and executor are apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Difference:
    """One comparison in float64.

    Attributes:
        layer: Path, or "whole net".
        absolute: max |a - b|.
        relative: max |a - b| / max |b|.
    """

    layer: str
    absolute: float
    relative: float

    @classmethod
    def between(cls, layer: str, a: Tensor, b: Tensor) -> "Difference":
        """Compare two tensors of one shape."""
        a, b = (t.resolve_conj() if t.is_complex() else t.double() for t in (a, b))
        same = (a == b) | (a.isnan() & b.isnan())  # infinities and NaN in both are no difference
        absolute = torch.where(same, 0, (a - b).abs()).max().nan_to_num(inf).item()
        size = b.abs().nan_to_num(0, 0, 0).max().item()
        return cls(layer, absolute, absolute / max(size, 1e-300))


@dataclass(frozen=True)
class Verification:
    """What `Charted.verify` found; prints as a table.

    Attributes:
        rows: A comparison per layer that has an executor, and one of the whole net.
    """

    rows: tuple[Difference, ...]

    @property
    def worst(self) -> float:
        """Largest relative difference."""
        return max(row.relative for row in self.rows)

    def __str__(self) -> str:
        table = Table("layer", "max |a - b|", "relative", title="float64")
        for row in self.rows:
            table.add_row(row.layer, f"{row.absolute:.2e}", f"{row.relative:.2e}")
        console = Console(width=100)
        with console.capture() as capture:
            console.print(table)
        return capture.get()

    __repr__ = __str__


def compare_layers(
    plain: nn.Module,
    executors: Sequence[Mapping[str, tuple[nn.Module, dict[str, Tensor]]]],
    run: Callable[[], Any],
) -> list[Difference]:
    """Compare layers of `plain` with their executors, on the layers' own inputs while it runs.

    Args:
        plain: Its layers get hooks.
        executors: Path -> executor and the tensors it runs with.
        run: Runs `plain` once.
    """
    rows: list[Difference] = []

    def compare(path: str, executor: nn.Module, tensors: dict[str, Tensor]) -> None:
        def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
            other = functional_call(executor, tensors, inputs, tie_weights=False)
            rows.append(Difference.between(path, output, other))

        plain.get_submodule(path).register_forward_hook(hook)

    for found in executors:
        for path, (executor, tensors) in found.items():
            compare(path, executor, tensors)
    run()
    return rows


def compare_outputs(what: str, found: Any, right: Any) -> Difference:
    """The largest difference between tensors of two outputs, however these hold them.

    Containers are followed, and the attributes of other objects (dataclasses). Shapes that differ
    differ infinitely.

    Raises:
        TypeError: They hold no tensor.
    """
    pairs = list(zip_longest(_tensors(found), _tensors(right)))
    if not pairs:
        raise TypeError(f"the model returns a {type(found).__name__} that holds no tensor")
    rows = [
        Difference.between(what, a, b)
        if a is not None and b is not None and a.shape == b.shape
        else Difference(what, inf, inf)
        for a, b in pairs
    ]
    return max(rows, key=lambda row: row.relative)


def _tensors(value: Any) -> list[Tensor]:
    """All tensors with values in an output, in its order."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found += [leaf] if leaf.numel() else []
        elif isinstance(leaf, Mapping):
            found += _tensors(list(leaf.values()))
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type | nn.Module):
            found += _tensors(list(vars(leaf).values()))
    return found


@dataclass(frozen=True)
class Level:
    """A chart of a net.

    Attributes:
        kind: The chart's.
        coordinates: Number of its parameters.
        rows: What it describes itself by.
    """

    kind: str
    coordinates: int
    rows: list[dict[str, Any]]


def summarize(net: nn.Module, deployed: int, levels: Sequence[Level]) -> None:
    """Print parameter counts and a table for each chart.

    Args:
        net: The net while training.
        deployed: Parameters of the plain network.
        levels: Its charts, the outermost first.
    """
    console = Console()
    training = sum(p.numel() for p in net.parameters())
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    console.print(
        f"parameters: {training:,} while training ({trainable:,} trainable), {deployed:,} deployed"
    )
    for level in levels:
        title = f"{level.kind}: {level.coordinates:,} coordinates"
        columns = list(dict.fromkeys(key for row in level.rows for key in row))
        table = Table(*columns, title=title, title_justify="left")
        for row in level.rows:
            table.add_row(*(_cell(row.get(column, "")) for column in columns))
        console.print(table if level.rows else title)


def _cell(value: Any) -> str:
    if not isinstance(value, int):
        return str(value)
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
