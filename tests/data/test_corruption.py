import pytest
import torch

from weightfold.data import corrupt_labels

LABELS = torch.arange(20_000) % 10


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_nine_tenths_of_the_fraction_end_up_wrong_of_ten_classes(fraction):
    corrupted, changed = corrupt_labels(LABELS, fraction, 10, seed=0)
    assert torch.equal(changed, corrupted != LABELS)
    wrong = 0.9 * fraction
    deviation = (wrong * (1 - wrong) / len(LABELS)) ** 0.5
    assert abs(changed.double().mean().item() - wrong) < 4 * deviation


def test_drawn_labels_are_uniform_over_all_classes():
    corrupted, changed = corrupt_labels(LABELS, 1.0, 10, seed=0)
    counts = corrupted.bincount(minlength=10).double()
    chi_square = ((counts - 2000).square() / 2000).sum().item()
    assert chi_square < 33.7  # 9 degrees of freedom, p = 1e-4
    # Their own class included: one in ten stays.
    assert abs((~changed).double().mean().item() - 0.1) < 4 * (0.09 / len(LABELS)) ** 0.5


def test_the_mask_is_drawn_as_in_the_released_code():
    # NumPy's first uniform numbers after seed 12345, as books print them, are
    # 0.9296, 0.3164, 0.1839, 0.2046, 0.5677; with a million classes a drawn label differs.
    _, changed = corrupt_labels(torch.zeros(5).long(), 0.3, 10**6, seed=12345)
    assert changed.tolist() == [False, False, True, True, False]


def test_labels_are_frozen_by_the_seed_and_the_given_ones_left():
    before = LABELS.clone()
    first, again, other = (corrupt_labels(LABELS, 0.5, 10, seed)[0] for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(LABELS, before)


def test_no_fraction_changes_nothing():
    corrupted, changed = corrupt_labels(LABELS, 0.0, 10, seed=0)
    assert torch.equal(corrupted, LABELS)
    assert not changed.any()


@pytest.mark.parametrize(
    ("fraction", "classes", "seed", "message"),
    [
        (1.2, 10, 0, "fraction=1.2"),
        (-0.1, 10, 0, "fraction=-0.1"),
        (0.5, 9, 0, "num_classes=9, but labels run to 9"),
        (0.5, 10, -1, "seed=-1"),
    ],
)
def test_arguments_out_of_range_are_refused(fraction, classes, seed, message):
    with pytest.raises(ValueError, match=message):
        corrupt_labels(LABELS, fraction, classes, seed)
