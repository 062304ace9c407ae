"""A toy: how large the weights of a network are."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from weightfold.core.arguments import gathered
from weightfold.probes.finding import Finding
from weightfold.probes.models import Model, net_of
from weightfold.probes.registry import register_probe
from weightfold.report.figures import drawing


@dataclass(frozen=True, kw_only=True)
class WeightSize(Finding):
    """Mean absolute weight, a value a seed."""

    probe: ClassVar[str] = "toy-size"
    values: tuple[float, ...]

    @property
    def headline(self) -> str:
        return f"A weight is {fmean(self.values):.4f} large."

    @property
    def meaning(self) -> str:
        return "The mean of |w| over all parameters."

    def rows(self) -> list[dict[str, Any]]:
        return [{"seed": seed, "size": value} for seed, value in enumerate(self.values)]

    def draw(self, path: Path) -> None:
        with drawing(path, figsize=(3, 2)) as (_, axis):
            axis.plot(self.values, "o")


@dataclass(frozen=True)
class SizeOptions:
    """Options of the toy."""

    scale: float = 1.0


@register_probe(
    "toy-size", "how large the weights of a network are", finds=WeightSize, options=SizeOptions
)
def weight_size(net: Model, data: Any, *, seeds: range = range(2), **options: Any) -> WeightSize:
    """|w|, multiplied by `scale`."""
    chosen = gathered(SizeOptions, options)
    nets = [net_of(net, seed) for seed in seeds]
    sizes = [fmean(p.abs().mean().item() for p in one.parameters()) for one in nets]
    return WeightSize(values=tuple(chosen.scale * size for size in sizes))
