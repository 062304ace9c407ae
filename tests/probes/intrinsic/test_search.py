"""The search alone, on accuracies that are known functions of d."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightfold.probes.intrinsic.search import between, bracket, crossing, dips, search

D = 5000


class Measure:
    """Accuracies by a function of (d, seed); remembers what it was asked for."""

    def __init__(self, of, seeds: int) -> None:
        self.of, self.seeds, self.calls = of, seeds, []

    def __call__(self, dims):
        self.calls.append(list(dims))
        return {d: tuple(self.of(d, s) for s in range(self.seeds)) for d in dims}

    @property
    def dims(self):
        return [d for call in self.calls for d in call]


def steps(measure, *, bar=0.5, start=16, d_max=D, resolution=0.1, breadth=1):
    return search(measure, bar, start=start, d_max=d_max, resolution=resolution, breadth=breadth)


@given(
    true=st.lists(st.integers(1, D), min_size=1, max_size=4),
    start=st.integers(1, D),
    resolution=st.sampled_from([0.01, 0.1, 0.5, 3.0]),
    breadth=st.integers(1, 9),
)
def test_a_step_is_bracketed_to_the_resolution(true, start, resolution, breadth):
    """A seed passes from its own dimension on: every seed's crossing is shut in."""
    measure = Measure(lambda d, s: float(d >= true[s]), len(true))
    curve = steps(measure, start=start, resolution=resolution, breadth=breadth)
    assert list(curve) == sorted(set(measure.dims))
    assert len(measure.dims) == len(curve)
    assert all(1 <= d <= D for d in curve)
    assert all(1 <= len(call) <= breadth for call in measure.calls)
    low, high = bracket(curve, 0.5)
    assert high is not None
    assert max(true) <= high
    if low is None:
        assert high == 1
    else:
        assert low < max(true)
        assert high == low + 1 or high <= low * (1 + resolution)
    for index, d in enumerate(true):
        found = crossing(curve, index, 0.5)
        below = max((tried for tried in curve if tried < d), default=None)
        above = min(tried for tried in curve if tried >= d)
        if below is None:
            assert found == above == 1
        else:
            assert found == pytest.approx((below * above) ** 0.5, rel=1e-12)


@given(
    slopes=st.lists(st.floats(0.02, 0.2), min_size=1, max_size=3),
    crossings=st.lists(st.floats(2, D / 2), min_size=3, max_size=3),
    breadth=st.integers(1, 8),
)
def test_a_straight_line_in_log_d_is_crossed_exactly(slopes, crossings, breadth):
    def line(d, s):
        return 0.5 + slopes[s] * log(d / crossings[s])

    curve = steps(Measure(line, len(slopes)), breadth=breadth)
    for index in range(len(slopes)):
        assert crossing(curve, index, 0.5) == pytest.approx(crossings[index], rel=1e-9)


def test_doubling_then_bisection_in_log_d():
    measure = Measure(lambda d, s: float(d >= 750), 1)
    steps(measure)
    assert measure.dims == [16, 32, 64, 128, 256, 512, 1024, 724, 861, 790]


def test_several_dimensions_a_call():
    measure = Measure(lambda d, s: float(d >= 750), 1)
    curve = steps(measure, breadth=8)
    assert measure.calls == [
        [16, 32, 64, 128, 256, 512, 1024, 2048],
        between(512, 1024, 7),
    ]
    assert bracket(curve, 0.5) == (724, 790)


@pytest.mark.parametrize("breadth", [1, 3, 8])
def test_never_reached_ends_at_d_max(breadth):
    measure = Measure(lambda d, s: 0.4 if s else 0.6, 2)
    curve = steps(measure, d_max=300, breadth=breadth)
    assert max(curve) == 300
    assert bracket(curve, 0.5) == (300, None)
    assert crossing(curve, 1, 0.5) is None


def test_halved_until_no_seed_reaches_the_bar():
    """One seed passes from 3 on, the other from 40 on."""
    measure = Measure(lambda d, s: float(d >= (3, 40)[s]), 2)
    curve = steps(measure, start=16)
    assert 2 in curve
    assert 1 not in curve
    assert 2 < crossing(curve, 0, 0.5) <= 4


def test_failed_runs_are_left_out():
    curve = {10: (0.2, None), 20: (None, None), 40: (0.8, None)}
    assert bracket(curve, 0.5) == (20, 40)
    assert crossing(curve, 0, 0.5) == pytest.approx(20)
    assert crossing(curve, 1, 0.5) is None


def test_search_ends_when_every_run_fails():
    assert max(steps(Measure(lambda d, s: None, 2))) == D


def test_first_crossing_counts_and_later_dips_are_told():
    curve = {10: (0.2,), 20: (0.6,), 40: (0.4,), 80: (0.9,), 160: (None,)}
    assert 10 < crossing(curve, 0, 0.5) < 20
    assert dips(curve, 0, 0.5) == [40]
    assert dips({10: (0.2,), 20: (0.6,)}, 0, 0.5) == []


@given(st.integers(1, 10_000), st.integers(2, 10_000), st.integers(1, 20))
def test_between_is_strictly_inside_and_never_empty(low, gap, count):
    found = between(low, low + gap, count)
    assert 1 <= len(found) <= count
    assert all(low < d < low + gap for d in found)
    assert found == sorted(set(found))
