import pytest
import torch

from weightfold.data import Examples, split
from weightfold.data.splitting import consecutive

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 17 + [3] * 3)


def numbered(labels):
    """A set whose images show their own number."""
    numbers = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Examples(numbers, labels)


def shown(image_set):
    return image_set.inputs.flatten().tolist()


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


def test_groups_count_anew_where_the_label_changes():
    labels = torch.tensor([0] * 5 + [1] * 2 + [0] * 3)
    assert consecutive(labels, 2).tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]


@pytest.mark.parametrize("validation", [0.2, 20, 1, 99])
def test_groups_are_never_torn(validation):
    labels = torch.arange(4).repeat_interleave(25)
    groups = consecutive(labels, 5)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    parts = split(numbered(labels[order]), validation, 0, groups[order])
    one, two = ({int(groups[order][i]) for i in range(100) if i in shown(p)} for p in parts)
    assert not one & two and len(one | two) == 20
    assert sorted(shown(parts[0]) + shown(parts[1])) == list(range(100))
    if validation in (0.2, 20):
        assert parts[1].labels.bincount().tolist() == [5, 5, 5, 5]


def test_one_group_cannot_be_split():
    with pytest.raises(ValueError, match="all images are of one group"):
        split(numbered(LABELS), 10, 0, torch.zeros(100, dtype=torch.int64))
