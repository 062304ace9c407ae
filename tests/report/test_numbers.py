import math

import pytest

from weightfold.report.numbers import (
    count,
    difference,
    duration,
    interval,
    mean_and_spread,
    number,
    percent,
    size,
)
from weightfold.report.statistics import Paired, paired, summarize


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (number(None), "-"),
        (number(math.nan), "nan"),
        (number(-math.inf, unit="ms"), "-∞ ms"),
        (number(1234.5, 1, unit="ms"), "1,234.5 ms"),
        (number(-0.001, 2), "0.00"),
        (number(0.5, 0), "0"),
        (number(2.25, 1, signed=True), "+2.2"),
        (percent(0.7354), "73.5%"),
        (percent(-0.02, signed=True), "-2.0%"),
        (count(1, "seed"), "1 seed"),
        (count(1024, "image"), "1,024 images"),
        (size(999), "999 B"),
        (size(2_500_000), "2.5 MB"),
        (duration(3.14), "3.1 s"),
        (duration(200), "3 min 20 s"),
        (duration(7500), "2 h 5 min"),
    ],
)
def test_text(given, text):
    assert given == text


def test_mean_and_spread():
    assert mean_and_spread(summarize([0.7, 0.72]), 1, unit="%", factor=100) == "71.0 ± 1.4%"
    assert mean_and_spread(summarize([0.7]), 1, unit="%", factor=100) == "70.0%"
    assert mean_and_spread(None) == "-"


def test_intervals_of_shares_stay_within_their_bounds():
    assert interval(-3.2, 104.0, 1, within=(0, 100)) == "[0.0, 100.0]"
    assert interval(-3.2, 4.0, 1, signed=True) == "[-3.2, +4.0]"
    assert interval(None, 4.0) == ""


def test_difference():
    found = paired([0.72, 0.74, 0.73], [0.70, 0.70, 0.72])
    scaled = found.scaled(100)
    assert difference(found, 1, unit="points", factor=100) == (
        f"+{scaled.mean:.1f} points, 95% [{scaled.low:+.1f}, {scaled.high:+.1f}], 3 seeds"
    )
    one = Paired(0.5, None, None, None, 1, 0.95)
    assert difference(one, 1) == "+0.5, one seed"
