"""What a net says about itself: parameters, costs, and how far layer and executor are apart."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

from weightfold.core.charted import Charted


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
        absolute = (a - b).abs().max().item()
        return cls(layer, absolute, absolute / max(b.abs().max().item(), 1e-300))


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


@torch.no_grad()
def verify(
    net: Charted, args: tuple, kwargs: dict[str, Any], at: Mapping[str, Any]
) -> Verification:
    """Compare every layer with its executor on the layer's own input, and the net with deploy()."""
    net = copy.deepcopy(net).double().eval()
    args = tuple(_double(a) for a in args)
    kwargs = {k: _double(v) for k, v in kwargs.items()}
    at = at or net.somewhere()
    plain = net.lower(at)
    rows: list[Difference] = []

    def compare(path: str, executor: nn.Module, tensors: dict[str, Tensor]) -> None:
        def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
            other = functional_call(executor, tensors, inputs, tie_weights=False)
            rows.append(Difference.between(path, output, other))

        plain.get_submodule(path).register_forward_hook(hook)

    for chart in net.charts:
        for path, (executor, tensors) in chart.alternatives(**at).items():  # type: ignore[operator]
            compare(path, executor, tensors)
    below = {"at": at} if isinstance(plain, Charted) else {}
    plain(*args, **kwargs, **below)
    deployed = net.deploy(at)(*args, **kwargs)
    charted = net(*args, at=at, **kwargs)
    if isinstance(charted, Tensor):
        rows.append(Difference.between("whole net", charted, deployed))
    return Verification(tuple(rows))


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def parameter_counts(net: nn.Module) -> dict[str, int]:
    """Parameters while training (all, trainable) and deployed."""
    plain = net.deploy(net.somewhere()) if isinstance(net, Charted) else net
    return {
        "training": sum(p.numel() for p in net.parameters()),
        "trainable": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "deployed": sum(p.numel() for p in plain.parameters()),
    }


def print_summary(net: Charted) -> None:
    """Print parameter counts and a table for each chart of each level."""
    console = Console()
    counts = parameter_counts(net)
    console.print(
        f"parameters: {counts['training']:,} while training ({counts['trainable']:,} trainable), "
        f"{counts['deployed']:,} deployed"
    )
    level: nn.Module = net
    while isinstance(level, Charted):
        for chart in level.charts:
            rows = chart.describe()  # type: ignore[operator]
            psi = sum(p.numel() for p in chart.parameters())
            columns = list(dict.fromkeys(key for row in rows for key in row))
            table = Table(
                *columns, title=f"{chart.kind}: {psi:,} coordinates", title_justify="left"
            )
            for row in rows:
                table.add_row(*(_cell(row.get(column, "")) for column in columns))
            console.print(table if rows else f"{chart.kind}: {psi:,} coordinates")
        level = level.model


def _cell(value: Any) -> str:
    if not isinstance(value, int):
        return str(value)
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
