"""Search for the smallest dimension that reaches a bar: by doubling, then between two."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, log, log1p

from weightfold.tasks.measure import Measure

Heights = Sequence[float | None]
"""Values, of which more is better: one a seed, in the order of the seeds; None where the run
failed."""
Curve = Mapping[int, Heights]
"""Dimension -> heights."""


def heights(values: Curve, measure: Measure) -> Curve:
    """Values of a measure by dimension, so that more is better."""
    sign = 1 if measure.higher_is_better else -1
    return {d: tuple(None if v is None else sign * v for v in row) for d, row in values.items()}


def search(
    measure: Callable[[list[int]], Curve],
    bar: float,
    *,
    start: int,
    d_max: int,
    resolution: float,
    breadth: int,
) -> dict[int, Heights]:
    """Measure dimensions until the smallest that reaches the bar is known to `resolution`.

    From `start` the dimension is doubled until every seed reaches the bar and halved until none
    does, within 1..d_max. Then points equally spaced in log d are put into the bracket, see
    `bracket`, until its ends are within `resolution` or are neighbours.

    Args:
        measure: Gives the heights of new dimensions, in rising order.
        bar: Height to reach.
        start: First dimension, 1 to d_max.
        d_max: Largest dimension.
        resolution: Largest high / low - 1 of the bracket at the end, above 0.
        breadth: Dimensions measured in one call, at least 1; with 1 the bracket is bisected.

    Returns:
        All that was measured, by rising dimension.
    """
    curve: dict[int, Heights] = {}
    dims = _doubled(start, d_max, breadth)
    while dims:
        curve |= measure(dims)
        dims = _following(curve, bar, d_max, resolution, breadth)
    return dict(sorted(curve.items()))


def _doubled(first: int, d_max: int, count: int) -> list[int]:
    steps = (min(first * 2**step, d_max) for step in range(count))
    return sorted(set(steps))


def _following(curve: Curve, bar: float, d_max: int, resolution: float, breadth: int) -> list[int]:
    """The dimensions to measure next; none when the search is over."""
    lowest, highest = min(curve), max(curve)
    low, high = bracket(curve, bar)
    if high is None and highest < d_max:
        return _doubled(min(2 * highest, d_max), d_max, breadth)
    if lowest > 1 and any(_reached(curve[lowest], bar)):
        return sorted({max(lowest // 2**step, 1) for step in range(1, breadth + 1)})
    if low is None or high is None or high <= low * (1 + resolution):
        return []
    wanted = ceil(log(high / low) / log1p(resolution)) - 1
    return between(low, high, min(max(wanted, 1), breadth))


def between(low: int, high: int, count: int) -> list[int]:
    """Up to `count` whole numbers strictly between, equally spaced in their logarithm."""
    exact = (low * (high / low) ** (step / (count + 1)) for step in range(1, count + 1))
    return sorted({round(d) for d in exact} - {low, high})


def bracket(curve: Curve, bar: float) -> tuple[int | None, int | None]:
    """The smallest dimension at which every seed reaches the bar, and the one before it.

    Returns:
        (low, high): `high` is None if there is none, `low` then the largest dimension measured;
        `low` is None if `high` is the smallest measured.
    """
    reached = [d for d in curve if curve[d] and _all(_reached(curve[d], bar))]
    high = min(reached, default=None)
    return max((d for d in curve if high is None or d < high), default=None), high


def crossing(curve: Curve, index: int, bar: float) -> float | None:
    """Where one seed first reaches the bar.

    Interpolated linearly in log d between the dimension that reaches it and the one before; failed
    runs are left out. The smallest dimension measured is given as it is: a bound from above.

    Args:
        curve: By rising dimension.
        index: Of the seed.
        bar: Height to reach.

    Returns:
        The dimension; None if it is never reached.
    """
    before: tuple[int, float] | None = None
    for d, height in _of(curve, index):
        if height >= bar:
            if before is None:
                return float(d)
            share = (bar - before[1]) / (height - before[1])
            return before[0] * (d / before[0]) ** share
        before = (d, height)
    return None


def dips(curve: Curve, index: int, bar: float) -> list[int]:
    """Dimensions at which one seed is below the bar again, having reached it at a smaller one."""
    measured = _of(curve, index)
    first = min((d for d, height in measured if height >= bar), default=None)
    return [d for d, height in measured if first is not None and d > first and height < bar]


def _of(curve: Curve, index: int) -> list[tuple[int, float]]:
    pairs = ((d, row[index]) for d, row in curve.items())
    return [(d, height) for d, height in pairs if height is not None]


def _reached(heights: Heights, bar: float) -> list[bool]:
    return [height >= bar for height in heights if height is not None]


def _all(reached: list[bool]) -> bool:
    return bool(reached) and all(reached)
