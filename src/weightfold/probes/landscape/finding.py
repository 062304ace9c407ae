"""A slice through the loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import number
from weightfold.report.statistics import summarize


@dataclass(frozen=True)
class Slice:
    """The values of a seed's network.

    Attributes:
        seed: Of the network.
        values: Measure -> value at each point, the second axis fastest; None where not finite.
    """

    seed: int
    values: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, kw_only=True)
class Landscape(Finding):
    """Loss and scores on a line or a plane in the space of weights (Li et al. 2018).

    Attributes:
        network: Class and size of the network.
        data: Name of the data.
        statement: What loss, in what coordinates, with which batch norm.
        along: The direction of each axis.
        axes: The coordinates on each axis.
        slices: One for each seed.
        recipe: How the networks were trained; None if they were given.
    """

    probe: ClassVar[str] = "landscape"
    network: str
    data: str
    statement: str
    along: tuple[str, ...]
    axes: tuple[tuple[float, ...], ...]
    slices: tuple[Slice, ...]
    recipe: Mapping[str, Any] | None

    @property
    def places(self) -> list[tuple[float, ...]]:
        """The coordinates of each point."""
        if len(self.axes) == 1:
            return [(a,) for a in self.axes[0]]
        return [(a, b) for a in self.axes[0] for b in self.axes[1]]

    def centre(self, measure: str) -> list[float]:
        """A measure where the network is, of each seed; NaN where it is not finite."""
        at = min(range(len(self.places)), key=lambda i: sum(x * x for x in self.places[i]))
        return [nan if (v := one.values[measure][at]) is None else v for one in self.slices]

    def rise(self, measure: str, within: float) -> list[float]:
        """Mean of a measure over all points at most so far away, less the centre, of each seed.

        Points where it is not finite are left out.
        """
        near = [i for i, at in enumerate(self.places) if sum(x * x for x in at) <= within**2]
        rises = []
        for one, centre in zip(self.slices, self.centre(measure), strict=True):
            known = [v for i in near if (v := one.values[measure][i]) is not None]
            rises.append(fmean(known) - centre if known else nan)
        return rises

    @property
    def gaps(self) -> int:
        """Points whose loss is not finite."""
        return sum(v is None for one in self.slices for v in one.values["loss"])

    @property
    def headline(self) -> str:
        """The answer in words."""
        reach = min(max(axis) for axis in self.axes) / 2
        rise, centre = summarize(self.rise("loss", reach)), summarize(self.centre("loss"))
        text = (
            f"Within {reach:g} of the network the loss is {number(rise.mean, 4)} above its "
            f"{number(centre.mean, 4)} in the mean, along {' and '.join(self.along)}."
        )
        if self.gaps:
            text += f" At {self.gaps} points it is not finite: gaps in the figure."
        return f"{text} {self.statement}"

    @property
    def meaning(self) -> str:
        """What it means."""
        return (
            "The loss is evaluated on a line or plane through the network's weights. Random "
            "directions and the gradient are scaled so that each filter is as long as the "
            "network's own: a distance of 1 is a change as large as the weights. Low and wide "
            "valleys are held to generalise better; one slice shows two of all directions."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each point and seed."""
        return [
            {"seed": one.seed}
            | {f"x{axis}": x for axis, x in enumerate(at, 1)}
            | {name: values[i] for name, values in one.values.items()}
            for one in self.slices
            for i, at in enumerate(self.places)
        ]

    def draw(self, path: Path) -> None:
        """Lines of every seed; or contours and surface of the first."""
        if len(self.axes) == 1:
            self._draw_lines(path)
        else:
            draw_plane(self, path)

    def _draw_lines(self, path: Path) -> None:
        names = list(self.slices[0].values)
        with drawing(path, figsize=(5 * len(names), 4), ncols=len(names), squeeze=False) as (
            figure,
            axes,
        ):
            for name, axis in zip(names, axes[0], strict=True):
                for one, colour in zip(self.slices, COLOURS, strict=False):
                    values = [nan if v is None else v for v in one.values[name]]
                    axis.plot(self.axes[0], values, color=colour, label=f"seed {one.seed}")
                axis.set(xlabel=self.along[0], ylabel=name)
                axis.grid(alpha=0.3)
            if len(self.slices) > 1:
                axes[0][0].legend(fontsize="small")
            figure.suptitle(f"{self.network}, {self.data}", fontsize="medium")


def draw_plane(found: Landscape, path: Path) -> None:
    """The first seed's loss as contours and as a surface, and contours of the first score."""
    import numpy as np

    first, (a, b) = found.slices[0], found.axes
    names = list(first.values)[:2]
    panels = len(names) + 1
    with drawing(path, figsize=(5 * panels, 4.2), ncols=panels) as (figure, axes):
        for name, axis in zip(names, axes, strict=False):
            grid = np.array(first.values[name], dtype=float).reshape(len(a), len(b)).T
            drawn = axis.contourf(a, b, np.ma.masked_invalid(grid), levels=20)
            figure.colorbar(drawn, ax=axis, label=name)
            axis.plot(0, 0, "+", color="white")
            axis.locator_params(nbins=5)
            axis.set(xlabel=found.along[0], ylabel=found.along[1], facecolor="lightgrey")
        axes[-1].remove()
        surface = figure.add_subplot(1, panels, panels, projection="3d")
        loss = np.array(first.values["loss"], dtype=float).reshape(len(a), len(b)).T
        surface.plot_surface(*np.meshgrid(a, b), loss, cmap="viridis", linewidth=0)
        surface.set_box_aspect(None, zoom=0.85)
        surface.set(xlabel=found.along[0], ylabel=found.along[1], zlabel="loss")
        title = f"{found.network}, {found.data}, seed {first.seed}"
        figure.suptitle(title + (" (grey: not finite)" if found.gaps else ""), fontsize="medium")
