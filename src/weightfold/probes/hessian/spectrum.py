"""The density of eigenvalues, as random vectors see it."""

from dataclasses import dataclass
from math import exp, pi, sqrt
from statistics import fmean

from weightfold.probes.hessian.krylov import Measure
from weightfold.report.statistics import Summary, paired, summarize


@dataclass(frozen=True)
class Share:
    """The share of eigenvalues up to some value.

    Attributes:
        low: Lower bound.
        high: Upper bound.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Spectrum:
    """The density of the eigenvalues of a matrix.

    Attributes:
        size: Number of eigenvalues.
        measures: One for each random vector.
    """

    size: int
    measures: tuple[Measure, ...]

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest node: eigenvalues reach at least so far."""
        nodes = [node for one in self.measures for node in one.nodes]
        return min(nodes), max(nodes)

    def share_below(self, x: float) -> Share:
        """Bounds of the share of eigenvalues up to x.

        The quadrature's own bounds of each vector's measure hold always; over the vectors their
        ends have 95% Student-t intervals, of which the outer ends are given.
        """
        ends = [one.share_below(x) for one in self.measures]
        zeros = [0.0] * len(ends)
        low = paired([a for a, _ in ends], zeros)
        high = paired([b for _, b in ends], zeros)
        return Share(max(0.0, low.low or 0.0), min(1.0, high.high or 1.0))

    def density(self, at: list[float], width: float | None = None) -> list[Summary]:
        """Density of the share of eigenvalues at some values: each node a Gaussian of its weight.

        Args:
            at: The values.
            width: Standard deviation of the Gaussians; None: a hundredth of `range`.

        Returns:
            Mean and standard deviation over the random vectors.
        """
        low, high = self.range
        width = width or max((high - low) / 100, 1e-12)
        return [summarize([_smoothed(one, x, width) for one in self.measures]) for x in at]

    @property
    def mean(self) -> float:
        """Mean eigenvalue: the trace over the size."""
        return fmean(
            sum(n * w for n, w in zip(one.nodes, one.weights, strict=True)) for one in self.measures
        )


def _smoothed(measure: Measure, x: float, width: float) -> float:
    return sum(
        weight * exp(-0.5 * ((x - node) / width) ** 2) / (width * sqrt(2 * pi))
        for node, weight in zip(measure.nodes, measure.weights, strict=True)
    )
