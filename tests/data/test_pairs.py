from dataclasses import replace

import pytest
import torch

from weightfold.data import hold_out
from weightfold.data.pairs import as_dataset


def part(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator), torch.arange(count) % 3


SAMPLES = as_dataset((part(30, 0), part(12, 1)))


def test_a_digest_is_of_all_that_a_network_sees():
    again = as_dataset((part(30, 0), part(12, 1)))
    assert again.digest == SAMPLES.digest
    others = [
        replace(SAMPLES, mean=(0.0,), std=(2.0,)),
        replace(SAMPLES, mean=(1.0,), std=(1.0,)),
        replace(SAMPLES, num_classes=4),
        replace(SAMPLES, test=SAMPLES.train),
        hold_out(SAMPLES, 5, seed=0),
    ]
    assert len({SAMPLES.digest, *(other.digest for other in others)}) == 6


def test_limits_and_their_bounds():
    few = SAMPLES.limited(train=7, test=100)
    assert (len(few.train), len(few.test)) == (7, 12)
    assert torch.isin(few.train.inputs, SAMPLES.train.inputs).all()
    for options in ({"train": 0}, {"test": -5}):
        with pytest.raises(ValueError, match="at least 1"):
            SAMPLES.limited(**options)


def test_what_is_held_out_is_not_trained_on():
    split = hold_out(SAMPLES, 8, seed=0)
    assert len(split.train) == 22 and len(split.validation) == 8
    rows = torch.cat([split.train.inputs, split.validation.inputs])
    assert torch.equal(rows.sort(dim=0).values, SAMPLES.train.inputs.sort(dim=0).values)
    for count in (0, 30):
        with pytest.raises(ValueError, match="from 1 to 29"):
            hold_out(SAMPLES, count, seed=0)
