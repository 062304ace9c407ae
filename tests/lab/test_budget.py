import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightfold.lab.budget import DEMANDS, LADDER, Pace, Sizes, fit

PACE = Pace(
    step=0.002, example=1e-4, look=3e-5, projection=0.002, parameters=50_000, layers=5,
    statistics=True, train=60_000, test=10_000,
)  # fmt: skip


@pytest.mark.parametrize("name", DEMANDS)
@given(seconds=st.floats(1, 1e6), slow=st.floats(0.1, 1e3), train=st.integers(64, 60_000))
def test_what_is_planned_fits(name, seconds, slow, train):
    demand = DEMANDS[name]
    pace = replace(
        PACE, step=slow * PACE.step, example=slow * PACE.example, look=slow * PACE.look, train=train
    )
    sizes, needed = fit(demand, pace, seconds)
    if sizes is None:
        assert needed > seconds
        again, _ = fit(demand, pace, needed)  # what is named as needed suffices
        assert again is not None
        return
    assert sizes.seconds == needed <= seconds
    assert demand.seconds(pace, sizes) == sizes.seconds
    assert sizes.train <= min(train, demand.most_train) and sizes.test <= pace.test
    assert sizes.epochs * sizes.steps >= demand.steps / 2
    assert sizes.batch_size <= demand.batch_size
    assert Sizes(**json.loads(json.dumps(asdict(sizes)))) == sizes


@pytest.mark.parametrize("name", DEMANDS)
def test_more_time_gives_no_less(name):
    found = [fit(DEMANDS[name], PACE, 10.0 * 4**k)[0] for k in range(12)]
    ranks = [(s.seeds, s.train) for s in found if s]
    assert ranks == sorted(ranks) and ranks[-1] == (3, min(60_000, DEMANDS[name].most_train))


def test_all_the_data_is_enough():
    small = replace(PACE, train=300, test=100)
    sizes, _ = fit(DEMANDS["memorization"], small, 1e6)
    assert sizes is not None
    assert (sizes.seeds, sizes.train, sizes.test) == (3, 300, 100)


def test_sizes_in_words():
    sizes = Sizes(LADDER[-1], 500, 12, 16, 1)
    assert sizes.text == "200 training and 500 test examples, 12 epochs, 1 seed"
    assert sizes.steps == 13
