import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightfold.codec import decode, encode
from weightfold.probes.memory.correctness import Correctness, Totals


def correctness(right, seeds=None):
    right = np.array(right, dtype=bool)
    runs, _, examples = right.shape
    none = np.zeros(examples, dtype=bool)
    labels = np.arange(examples)
    return Correctness("true", tuple(seeds or range(runs)), right, labels, none, none.copy())


# Two runs, epochs 0 to 4, three examples: columns are examples.
RIGHT = [
    [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]],
    [[0, 0, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]],
]


def test_by_hand():
    made = correctness(RIGHT)
    assert made.epochs == 4
    assert made.first_learnt.tolist() == [[1, 2, 0], [1, 1, 4]]
    # Epoch 0 does not count: before the first step being right is luck.
    assert made.forgotten.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert made.kept.tolist() == [[True, False, False], [True, False, False]]
    totals = made.totals()
    assert totals.after_one == (1, 1, 1)
    assert totals.kept_in_all == 1
    third = pytest.approx
    assert totals.right[1] == third((1 / 3, 2 / 3, 1 / 3, 1 / 3, 2 / 3))
    assert totals.kept[1] == third((2 / 3, 1 / 3, 1 / 3, 1 / 3))
    assert totals.learnt[0] == third((1 / 3, 1 / 3, 0, 0))
    assert totals.learnt[1] == third((2 / 3, 0, 0, 1 / 3))
    assert totals.forgotten[0] == third((0, 0, 1 / 3, 0))
    assert totals.forgotten[1] == third((0, 1 / 3, 0, 0))
    # 0, 1 and 2 of 2 runs: variance 1 against 2 * 1/2 * 1/2.
    assert totals.dispersion == pytest.approx(2.0)
    assert totals.chance_right == pytest.approx(0.5)


bits = st.integers(1, 4).flatmap(
    lambda runs: st.integers(2, 6).flatmap(
        lambda epochs: st.integers(2, 7).flatmap(
            lambda examples: st.lists(
                st.lists(
                    st.lists(st.booleans(), min_size=examples, max_size=examples),
                    min_size=epochs,
                    max_size=epochs,
                ),
                min_size=runs,
                max_size=runs,
            )
        )
    )
)


@given(bits)
def test_sums_belong_together(right):
    made = correctness(right)
    totals = made.totals()
    runs, _, examples = made.right.shape
    for run in range(runs):
        now = made.right[run, 1:]
        # What is right at the end was learnt, for the first time or again, and not forgotten since.
        again = (now[1:] & ~now[:-1]).sum() + now[0].sum() - (made.first_learnt[run] > 0).sum()
        balance = (made.first_learnt[run] > 0).sum() + again - made.forgotten[run].sum()
        assert balance == now[-1].sum()
        assert sum(totals.learnt[run]) == pytest.approx((made.first_learnt[run] > 0).mean())
        assert sum(totals.forgotten[run]) == pytest.approx(made.forgotten[run].mean())
        assert totals.kept[run][-1] == pytest.approx(made.kept[run].mean())
        assert all(a >= b for a, b in zip(totals.kept[run], totals.kept[run][1:], strict=False))
    assert sum(totals.after_one) == examples
    assert totals.kept_in_all == sum(
        row["runs_right_ever_after"] == runs for row in made.examples()
    )
    assert decode(json.loads(json.dumps(encode(totals))), Totals) == totals
    arrays = made.arrays()
    packed = np.unpackbits(arrays["right"], axis=2, count=examples).astype(bool)
    assert np.array_equal(packed, made.right)


def test_dispersion_is_one_for_equally_hard_examples_and_the_runs_for_fixed_ones():
    random = np.random.default_rng(0)
    luck = random.random((20, 2, 4000)) < 0.3
    totals = correctness(luck).totals()
    # The variance's own relative error is about sqrt(2 / 4000) = 2.2%.
    assert abs(totals.dispersion - 1) < 4 * 0.022
    low, high = totals.dispersion_interval()
    assert low < totals.dispersion < high and 0.05 < high - low < 0.15
    fixed = np.broadcast_to(random.random((1, 1, 4000)) < 0.3, (20, 2, 4000))
    # All or none of the 20 runs: 20 * 20 p (1 - p) against 20 p (1 - p).
    assert correctness(fixed).totals().dispersion == pytest.approx(20, rel=1e-3)
    assert np.isnan(correctness(np.ones((3, 2, 5))).totals().dispersion)
