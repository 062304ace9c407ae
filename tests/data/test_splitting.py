import pytest
import torch

from weightfold.data import ImageSet, split

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 17 + [3] * 3)


def numbered(labels):
    """A set whose images show their own number."""
    numbers = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(numbers, labels)


def shown(image_set):
    return image_set.images.flatten().tolist()


@pytest.mark.parametrize(("validation", "size"), [(1, 1), (10, 10), (0.25, 25), (99, 99)])
def test_split_takes_every_class_in_proportion_and_loses_nothing(validation, size):
    train, held_out = split(numbered(LABELS), validation, seed=3)
    assert len(held_out) == size
    assert sorted(shown(train) + shown(held_out)) == list(range(100))
    for part in (train, held_out):
        assert shown(part) == sorted(shown(part))
        assert part.labels.tolist() == [int(LABELS[i]) for i in shown(part)]
    for label in range(4):
        share = size * int((label == LABELS).sum()) / 100
        assert abs(int((held_out.labels == label).sum()) - share) < 1


def test_images_lost_by_rounding_come_from_the_classes_that_lost_most():
    _, held_out = split(numbered(LABELS), 10, seed=0)
    # Shares of 5, 3, 1.7 and 0.3 images.
    assert held_out.labels.bincount().tolist() == [5, 3, 2]


def test_split_is_drawn_with_the_seed():
    first, again, other = (split(numbered(LABELS), 20, seed)[1] for seed in (0, 0, 1))
    assert shown(first) == shown(again) != shown(other)
    assert shown(first) != list(range(10)) + list(range(50, 60))


@pytest.mark.parametrize("validation", [0, 100, -1, 1.0, 0.001, 1.5])
def test_split_refuses_to_leave_a_part_empty(validation):
    with pytest.raises(ValueError, match=f"validation={validation} splits"):
        split(numbered(LABELS), validation, seed=0)
