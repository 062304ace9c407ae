from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightfold.data import Dataset, Examples
from weightfold.data.disturb import (
    CONDITIONS,
    IN_PART,
    disturb,
    gaussian_inputs,
    random_labels,
    random_pixels,
    shuffled_pixels,
)


def samples(count=200, shape=(3, 5, 4), dtype=torch.uint8, classes=4, seed=0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)

    def part(count):
        x = torch.randint(0, 256, (count, *shape), generator=generator)
        y = torch.randint(0, classes, (count,), generator=generator)
        y[0], y[1] = 0, classes - 1
        return Examples(x.to(dtype), y)

    train, test, validation = part(count), part(40), part(30)
    return Dataset("made", train, test, classes, validation=validation, record={"source": "here"})


def entry(data: Dataset) -> dict:
    return data.record["disturbed"][-1]


def test_true_is_the_data_itself():
    data = samples()
    assert disturb(data, "true") is data


@pytest.mark.parametrize("condition", CONDITIONS[1:])
def test_frozen_by_the_seed_and_the_given_data_left(condition):
    data = samples()
    before = data.train.inputs.clone(), data.train.targets.clone()
    first, again, other = (disturb(data, condition, seed=seed) for seed in (3, 3, 4))
    assert first.digest == again.digest != other.digest
    assert torch.equal(data.train.inputs, before[0])
    assert torch.equal(data.train.targets, before[1])
    assert "disturbed" not in data.record


@pytest.mark.parametrize(
    ("condition", "fraction"),
    [(name, 1.0) for name in CONDITIONS[1:]] + [(name, 0.3) for name in IN_PART],
)
def test_the_record_says_how_many_truly_changed(condition, fraction):
    data = samples()
    noisy = disturb(data, condition, fraction=fraction, seed=5)
    labels = int((noisy.train.targets != data.train.targets).sum())
    inputs = int((noisy.train.inputs != data.train.inputs).flatten(1).any(dim=1).sum())
    assert noisy.record["source"] == "here"
    assert entry(noisy) == {
        "condition": condition,
        "fraction": fraction,
        "seed": 5,
        "labels_changed": labels,
        "inputs_changed": inputs,
    }
    if condition == "random-labels":
        # Drawn with probability 0.3 or 1, and one drawn label in four is the old one.
        share = 0.75 * fraction
        assert inputs == 0
        assert abs(labels - 200 * share) < 4 * (200 * share * (1 - share)) ** 0.5
    else:
        assert labels == 0
        assert inputs == round(200 * fraction)


def test_disturbances_add_up_in_the_record():
    twice = random_labels(shuffled_pixels(samples(), seed=1), fraction=0.5, seed=2)
    assert [d["condition"] for d in twice.record["disturbed"]] == [
        "shuffled-pixels",
        "random-labels",
    ]


def test_held_out_parts_change_under_one_permutation_only():
    data = samples()
    for condition in CONDITIONS:
        noisy = disturb(data, condition)
        for part in ("test", "validation"):
            same = torch.equal(noisy.parts[part].inputs, data.parts[part].inputs)
            assert same == (condition != "shuffled-pixels")
            assert torch.equal(noisy.parts[part].targets, data.parts[part].targets)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([(3, 4, 5), (2, 3, 2, 2), (1, 6, 6), (7, 5), (11,)]), st.integers(0, 99))
def test_one_permutation_for_all_images_and_channels(shape, seed):
    data = samples(12, shape)
    shuffled = shuffled_pixels(data, seed=seed)
    channels = shape[0] if len(shape) > 2 else 1

    def columns(part):
        """Each pixel's values in all images and channels."""
        return part.inputs.view(len(part), channels, -1).flatten(0, 1).T

    orders = []
    for name, part in data.parts.items():
        old, new = columns(part).tolist(), columns(shuffled.parts[name]).tolist()
        assert Counter(map(tuple, old)) == Counter(map(tuple, new))
        orders.append([old.index(column) for column in new])
    # Columns of 12 to 30 random bytes differ, so their places show the permutation.
    assert orders[0] == orders[1] == orders[2]


def test_each_image_has_a_permutation_of_its_own_that_keeps_pixels_whole():
    data = samples(300, (3, 6, 6))
    noisy = random_pixels(data, seed=0)
    old, new = (part.inputs.flatten(2).transpose(1, 2) for part in (data.train, noisy.train))
    permutations = set()
    for before, after in zip(old.tolist(), new.tolist(), strict=True):
        assert sorted(before) == sorted(after)
        permutations.add(tuple(before.index(pixel) for pixel in after))
    assert len(permutations) == 300


@pytest.mark.parametrize("make", [random_pixels, gaussian_inputs])
def test_a_fraction_leaves_the_others_untouched(make):
    data = samples()
    noisy = make(data, fraction=0.25, seed=9)
    changed = (noisy.train.inputs != data.train.inputs).flatten(1).any(dim=1)
    assert changed.sum() == 50
    # Drawn at random: the middle of 50 places out of 200, of standard deviation 7.1.
    middle = changed.nonzero().double().mean().item()
    assert abs(middle - 99.5) < 4 * 7.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gaussian_matches_mean_and_deviation_of_each_channel(dtype):
    data = samples(2000, (2, 5, 5), dtype)
    data.train.inputs[:, 1] = data.train.inputs[:, 1] / 10 - 50
    noise = gaussian_inputs(data).train.inputs.double()
    assert noise.dtype == torch.float64 and noise.min() < -50
    values = noise.transpose(0, 1).flatten(1)
    for got, was in zip(values, data.train.inputs.double().transpose(0, 1).flatten(1), strict=True):
        sigma = was.std(correction=0).item()
        # 50,000 independent values; the deviation's own error is sigma / sqrt(2 N).
        assert abs(got.mean().item() - was.mean().item()) < 4 * sigma / 50_000**0.5
        assert abs(got.std().item() - sigma) < 4 * sigma / 100_000**0.5
        kurtosis = ((got - got.mean()) / got.std()).pow(4).mean().item()
        assert abs(kurtosis - 3) < 4 * (24 / 50_000) ** 0.5


def test_gaussian_bytes_are_rounded_and_clipped():
    # Half black, half white: mean and deviation 127.5, so 31.7% of the noise lies outside.
    data = samples(1000, (1, 6, 6))
    data.train.inputs[:500], data.train.inputs[500:] = 0, 255
    noise = gaussian_inputs(data).train.inputs
    assert noise.dtype == torch.uint8
    clipped = ((noise == 0) | (noise == 255)).double().mean().item()
    assert abs(clipped - 0.317) < 4 * (0.317 * 0.683 / 36_000) ** 0.5 + 0.002


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"condition": "noise"}, "condition='noise'; give one of true, random-labels"),
        ({"condition": "gaussian", "fraction": 1.5}, "fraction=1.5"),
        ({"condition": "random-labels", "fraction": -1}, "fraction=-1"),
        ({"condition": "shuffled-pixels", "fraction": 0.5}, "of the whole set"),
        ({"condition": "true", "fraction": 0.5}, "of the whole set"),
        ({"condition": "gaussian", "seed": -1}, "seed=-1"),
        ({"condition": "random-labels", "seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        disturb(samples(), **arguments)
