"""Options of `pendulum_dimension`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from weightfold.hints import check_fields
from weightfold.probes.pendulum.search import PARAMETERS


@dataclass(frozen=True)
class PendulumOptions:
    """Which dimensions are tried, and what a policy may cost.

    Attributes:
        dims: Dimensions to try, 1 to 562.
        threshold: Share of the return with all parameters to reach, above 0, at most 1.
        population: Policies of a generation, at least 16.
        generations: At most so many; fewer if all policies of one balance to the end.
        episodes: Of each policy of a generation.
        test_episodes: Of the policy that is tested, the same for all dimensions of a seed.

    Raises:
        TypeError: A value is of another type.
        ValueError: One is out of range.
    """

    dims: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16)
    threshold: float = 0.9
    population: int = 64
    generations: int = 40
    episodes: int = 4
    test_episodes: int = 100

    def __post_init__(self) -> None:
        check_fields(self)
        dims = tuple(self.dims)
        if not dims or len(set(dims)) < len(dims):
            raise ValueError(f"dims={dims}: give at least one, and none twice")
        if min(dims) < 1 or max(dims) > PARAMETERS:
            raise ValueError(
                f"dims={dims}: the policy has {PARAMETERS} parameters; give dimensions from 1 to "
                f"{PARAMETERS}"
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be above 0 and at most 1")
        for name, value in self.budget.items():
            least = 16 if name == "population" else 1
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")

    @property
    def budget(self) -> dict[str, int]:
        """What the search for one policy may cost, as arguments of `search.train`."""
        return {
            "population": self.population,
            "generations": self.generations,
            "episodes": self.episodes,
            "test_episodes": self.test_episodes,
        }


class PendulumKeywords(TypedDict, total=False):
    """`PendulumOptions` as keyword arguments of `pendulum_dimension`."""

    options: PendulumOptions
    dims: Sequence[int]
    threshold: float
    population: int
    generations: int
    episodes: int
    test_episodes: int
