"""What the curvature of a network is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.probes.hessian.krylov import Eigenvalue, Trace
from weightfold.probes.hessian.spectrum import Spectrum
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import percent
from weightfold.report.page import Table

BULK = 0.1
"""Eigenvalues below this share of the largest are the bulk; ours."""


@dataclass(frozen=True)
class Layer:
    """The curvature within a layer, all else fixed.

    Attributes:
        name: Its path.
        size: Its coordinates.
        top: The largest eigenvalue of its block.
    """

    name: str
    size: int
    top: Eigenvalue


@dataclass(frozen=True)
class Point:
    """The curvature at the weights of a seed.

    Attributes:
        seed: Of the network.
        loss: There.
        gradient: Norm of the gradient.
        largest: Eigenvalues from the largest on.
        smallest: The smallest eigenvalue.
        trace: The sum of all.
        spectrum: Their density.
        layers: In the order of the network.
    """

    seed: int
    loss: float
    gradient: float
    largest: tuple[Eigenvalue, ...]
    smallest: Eigenvalue
    trace: Trace
    spectrum: Spectrum
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True)
class Curvature(Finding):
    """Eigenvalues, spectrum and trace of the Hessian of the loss, each with its error.

    Attributes:
        network: Class and size of the network.
        data: Name of the data.
        statement: What loss, in what coordinates, with which batch norm.
        matrix: "hessian" or "gauss-newton".
        tol: Largest bound asked for, relative to the eigenvalue.
        points: One for each seed.
    """

    probe: ClassVar[str] = "hessian"
    network: str
    data: str
    statement: str
    matrix: str
    tol: float
    points: tuple[Point, ...]

    @property
    def headline(self) -> str:
        """The answer in words."""
        first = self.points[0]
        top = first.largest[0]
        beyond = 1 - first.spectrum.share_below(BULK * abs(top.value)).low
        text = (
            f"The largest eigenvalue is {shown(top)}, the smallest {shown(first.smallest)}, the "
            f"trace {shown(first.trace)} (95%), at loss {first.loss:.4g}. At most "
            f"{percent(beyond)} of the eigenvalues are above {percent(BULK, 0)} of the largest. "
            f"{self.statement}"
        )
        if len(self.points) > 1:
            tops = ", ".join(shown(one.largest[0]) for one in self.points[1:])
            text += f" The other seeds' largest: {tops}."
        return text

    @property
    def meaning(self) -> str:
        """What it means."""
        return (
            "An eigenvalue is how fast the slope of the loss changes along its direction: gradient "
            "descent is unstable with a learning rate above 2 / the largest, and a minimum is flat "
            "where all are small. An eigenvalue lies within ± the bound of each value, which was "
            "measured; that none larger hides rests on random start vectors."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each eigenvalue, trace and layer."""
        rows = []
        for point in self.points:
            named = [(f"largest {i}", one) for i, one in enumerate(point.largest, 1)]
            named += [("smallest", point.smallest), ("trace", point.trace)]
            named += [(f"largest of {layer.name}", layer.top) for layer in point.layers]
            for what, one in named:
                row = {"seed": point.seed, "what": what, "value": one.value, "bound": one.bound}
                rows.append(row | {"loss": point.loss, "gradient_norm": point.gradient})
        return rows

    def table(self) -> Table:
        """Layers of the first seed."""
        rows = [[one.name, f"{one.size:,}", shown(one.top)] for one in self.points[0].layers]
        return Table(["layer", "coordinates", "largest eigenvalue of its block"], rows)

    def draw(self, path: Path) -> None:
        """The density of the spectrum, and the layers' largest eigenvalues."""
        panels = 1 + bool(self.points[0].layers)
        with drawing(path, figsize=(6 * panels, 4.4), ncols=panels, squeeze=False) as (
            figure,
            axes,
        ):
            _density(self.points, axes[0][0])
            if panels > 1:
                _layers(self.points[0], axes[0][1])
            figure.suptitle(f"{self.network}, {self.data}: {self.matrix}", fontsize="medium")


def shown(found: Eigenvalue | Trace) -> str:
    """Value and bound, to the bound's digits."""
    return f"{found.value:.5g} ± {found.bound:.2g}"


def _density(points: tuple[Point, ...], axis: Any) -> None:
    for point, colour in zip(points, COLOURS, strict=False):
        low, high = point.spectrum.range
        margin = 0.06 * max(high - low, 1e-12)
        grid = [low - margin + i * (high - low + 2 * margin) / 400 for i in range(401)]
        found = point.spectrum.density(grid)
        axis.plot(grid, [max(one.mean, 1e-12) for one in found], color=colour,
                  label=f"seed {point.seed}")  # fmt: skip
        for top in point.largest:
            axis.axvline(top.value, color=colour, linewidth=0.7, linestyle=":")
    peak = max(line.get_ydata().max() for line in axis.lines if len(line.get_ydata()) > 2)
    axis.set(yscale="log", xlabel="eigenvalue", ylabel="density", ylim=(peak * 1e-7, peak * 3))
    axis.set_title("spectrum (dotted: largest eigenvalues)", fontsize="small")
    axis.grid(alpha=0.3)
    if len(points) > 1:
        axis.legend(fontsize="small")


def _layers(point: Point, axis: Any) -> None:
    names = [layer.name for layer in point.layers]
    values = [layer.top.value for layer in point.layers]
    places = range(len(names))
    bounds = [layer.top.bound for layer in point.layers]
    axis.barh(places, values, xerr=bounds, color=COLOURS[0])
    axis.set_yticks(places, names, fontsize="small")
    axis.invert_yaxis()
    axis.set(xlabel="largest eigenvalue of the layer's block")
    axis.grid(alpha=0.3, axis="x")
