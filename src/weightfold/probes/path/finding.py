"""How high the loss rises between two networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import number


@dataclass(frozen=True, kw_only=True)
class LossPath(Finding):
    """Loss and scores along a path from one network to another.

    Attributes:
        network: Class and size of the network.
        data: Name of the data.
        statement: What loss, with which batch norm.
        kind: Of the path.
        aligned: Whether the other end's neurons were permuted first.
        distance: Between the ends.
        before: Between them before aligning; the same if not aligned.
        at: Places on the path, 0 to 1.
        values: Measure -> its value at each place; None where it is not finite.
    """

    probe: ClassVar[str] = "path"
    answers: ClassVar[tuple[str, ...]] = ("highest", "barrier")
    network: str
    data: str
    statement: str
    kind: str
    aligned: bool
    distance: float
    before: float
    at: tuple[float, ...]
    values: Mapping[str, tuple[float | None, ...]]

    @property
    def highest(self) -> float | None:
        """The highest loss on the path; None if somewhere it is not finite."""
        loss = self.values["loss"]
        return None if None in loss else max(v for v in loss if v is not None)

    @property
    def barrier(self) -> float | None:
        """The largest height of the loss above the straight line between the ends' losses."""
        loss = [nan if v is None else v for v in self.values["loss"]]
        if None in self.values["loss"]:
            return None
        ends = loss[0], loss[-1]
        over = [v - (1 - t) * ends[0] - t * ends[1] for t, v in zip(self.at, loss, strict=True)]
        return max(0.0, *over)

    @property
    def headline(self) -> str:
        """The answer in words."""
        loss = self.values["loss"]
        aligned = ""
        if self.aligned:
            aligned = (
                f" after aligning, which brought the ends from {self.before:.4g} to "
                f"{self.distance:.4g} apart"
            )
        if self.highest is None:
            return f"Somewhere on the {self.kind} path{aligned} the loss is not finite."
        return (
            f"On the {self.kind} path{aligned} the loss is at most {number(self.highest, 4)}, "
            f"{number(self.barrier, 4)} above the line between the ends' {number(loss[0], 4)} and "
            f"{number(loss[-1], 4)}. {self.statement}"
        )

    @property
    def meaning(self) -> str:
        """What it means."""
        return (
            "Two trained networks are in one valley if a path joins them on which the loss hardly "
            "rises. Neurons have no order: networks that differ in it alone are far apart and the "
            "same function, so a path is fair only between aligned ones. Batch norm's running "
            "statistics are of the ends, not of points between."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each place."""
        return [
            {"t": t, **{name: values[i] for name, values in self.values.items()}}
            for i, t in enumerate(self.at)
        ]

    def draw(self, path: Path) -> None:
        """Each measure along the path; gaps where it is not finite."""
        names = list(self.values)
        size = (5 * len(names), 4)
        with drawing(path, figsize=size, ncols=len(names), squeeze=False) as (figure, axes):
            for name, axis in zip(names, axes[0], strict=True):
                values = [nan if v is None else v for v in self.values[name]]
                axis.plot(self.at, values, color=COLOURS[0], marker=".")
                axis.set(xlabel=f"{self.kind} path{', aligned' if self.aligned else ''}",
                         ylabel=name)  # fmt: skip
                axis.grid(alpha=0.3)
            figure.suptitle(f"{self.network}, {self.data}", fontsize="medium")
