"""What is measured of a unit that was set back."""

from dataclasses import dataclass

DRAWN = "drawn anew"


@dataclass(frozen=True)
class Cell:
    """The test error of a network with one unit set back.

    Attributes:
        unit: The unit; "" for the trained network as it is.
        source: The epoch the unit is set back to, or "drawn anew".
        seed: Of the network.
        draw: Which of the draws, from 0; None for an epoch.
        error: Share of test examples that are wrong, in [0, 1].
        loss: Mean cross-entropy on them; None if it is not finite.
    """

    unit: str
    source: int | str
    seed: int
    draw: int | None
    error: float
    loss: float | None


@dataclass(frozen=True)
class Distance:
    """How far training took a unit, over its p parameters.

    Attributes:
        unit: The unit.
        seed: Of the network.
        l2: |theta_T - theta_0|_2 / sqrt(p).
        linf: max |theta_T - theta_0|.
    """

    unit: str
    seed: int
    l2: float
    linf: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over units.

    Attributes:
        rho: In [-1, 1].
        p: Two-sided p-value of no correlation.
        n: Number of units.
    """

    rho: float
    p: float
    n: int
