import math
import statistics

import numpy as np
import pytest
from scipy.stats import ttest_rel

from weightfold.report.statistics import (
    holm,
    judge,
    judge_apart,
    judge_within,
    paired,
    summarize,
)

A, B = [0.71, 0.745, 0.69, 0.72], [0.70, 0.70, 0.695, 0.68]


def test_summary_is_the_sample_mean_and_std():
    summary = summarize(A)
    assert summary.mean == pytest.approx(np.mean(A), abs=1e-15)
    assert summary.std == pytest.approx(np.std(A, ddof=1), rel=1e-12)
    assert summary.n == 4


def test_one_value_has_no_spread():
    assert summarize([0.5]).std is None
    only = paired([0.5], [0.25])
    assert (only.mean, only.std, only.low, only.high, only.n) == (0.25, None, None, None, 1)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_is_that_of_scipys_paired_t_test(level):
    difference = paired(A, B, level)
    wanted = ttest_rel(A, B).confidence_interval(level)
    assert (difference.low, difference.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    assert difference.mean == pytest.approx(statistics.fmean(A) - statistics.fmean(B), abs=1e-15)


def test_paired_takes_out_what_seeds_share():
    spread = [0.0, 10.0, 20.0]
    difference = paired([x + 1 for x in spread], spread)
    assert difference.std == 0
    assert difference.low == difference.high == difference.mean == 1


def of(*differences):
    return paired(differences, [0.0] * len(differences))


def test_a_difference_is_judged_by_its_whole_interval():
    assert judge(of(1.0, 1.1, 1.2)) == "holds" and judge(of(-1.0, -1.1, -1.2)) == "does not hold"
    assert judge(of(0.0, 0.0)) == "does not hold"  # equal is not above
    # The mean alone decides nothing, on either side, and no more does one seed.
    assert {judge(of(*d)) for d in ((1.0, -0.9), (-1.0, 0.9), (1.0,), (-1.0,))} == {"undecided"}
    assert judge(of(1.0, 1.1, 1.2).negated) == "does not hold"
    assert judge(of(1.0, 1.1, 1.2).minus(2)) == "does not hold"


def test_within_a_bar_and_apart():
    assert judge_within(of(1.0, 1.1, 1.2), 2) == judge_within(of(-1.0, -1.1, -1.2), 2) == "holds"
    assert judge_within(of(3.0, 3.1, 3.2), 2) == "does not hold"
    assert judge_within(of(1.9, 2.0, 2.1), 2) == judge_within(of(0.0), 2) == "undecided"
    assert judge_apart((2, 3), (0, 1)) == "holds" and judge_apart((0, 1), (1, 2)) == "does not hold"
    assert judge_apart((0, 2), (1, 3)) == judge_apart((None, None), (0, 1)) == "undecided"


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="values is empty"):
        summarize([])
    with pytest.raises(ValueError, match="a has 2 values and b 1"):
        paired([1, 2], [1])
    with pytest.raises(ValueError, match=r"level=95"):
        paired([1, 2], [1, 2], 95)
    assert not math.isnan(summarize([1.0]).mean)


def test_p_is_that_of_scipys_paired_t_test():
    assert paired(A, B).p == pytest.approx(ttest_rel(A, B).pvalue, rel=1e-9)
    assert paired([1.0], [0.0]).p is None
    assert paired([1.0, 2.0], [1.0, 2.0]).p == 1
    assert paired([1.0, 2.0], [0.0, 1.0]).p == 0


def test_holm_is_the_step_down_of_the_definition():
    given = [0.01, 0.04, 0.03, 0.005]
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, then never falling.
    assert holm(given) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_p_values_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="p_values"):
        holm([0.5, bad])
