import re

import pytest
import torch

from weightfold.data import Dataset, Examples, mean_and_std


def images(count=4, channels=3, side=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def dataset(**changes):
    given = {
        "name": "mine",
        "train": Examples(images(), torch.tensor([0, 1, 2, 0])),
        "test": Examples(images(), torch.tensor([0, 1, 2, 0])),
        "num_classes": 3,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
        "class_names": ("a", "b", "c"),
    }
    return Dataset(**given | changes)


@pytest.mark.parametrize(
    ("pixels", "labels", "error", "message"),
    [
        (images().short(), torch.zeros(4).long(), TypeError, "inputs is torch.int16"),
        (images().numpy(), torch.zeros(4).long(), TypeError, "inputs is ndarray"),
        (images(), torch.zeros(4).numpy(), TypeError, "targets is a ndarray"),
        (images() / torch.zeros(()), torch.zeros(4), ValueError, "inputs has values"),
        (images(), torch.zeros(3).long(), ValueError, "shape (3,) for 4 inputs"),
        (images(0), torch.zeros(0).long(), ValueError, "empty"),
    ],
)
def test_an_image_set_refuses_what_is_not_one(pixels, labels, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Examples(pixels, labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 2}, "train labels run from 0 to 2"),
        ({"test": Examples(images(), torch.tensor([0, 0, 0, -1]))}, "test labels run from -1"),
        (
            {"test": Examples(images(side=6), torch.zeros(4).long())},
            "test inputs are torch.uint8 (3, 6, 6)",
        ),
        ({"mean": (0.5,)}, "mean has 1 entries"),
        ({"std": (0.2,)}, "std has 1 entries"),
        ({"std": (0.2, 0.0, 0.2)}, "not positive"),
        ({"class_names": ("a", "b")}, "class_names has 2 entries; give 3"),
    ],
)
def test_a_data_set_refuses_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataset(**changes)


def test_select_takes_images_and_labels_in_the_order_of_the_index():
    pixels = images()
    chosen = Examples(pixels, torch.arange(4)).select(torch.tensor([2, 0]))
    assert chosen.targets.tolist() == [2, 0]
    assert torch.equal(chosen.inputs, torch.stack([pixels[2], pixels[0]]))


def test_mean_and_std_are_those_of_all_pixels_of_a_channel():
    # More images than are summed at a time, and channels that differ.
    pixels = images(2500, side=3) // torch.tensor([1, 2, 5], dtype=torch.uint8).view(3, 1, 1)
    mean, std = mean_and_std(Examples(pixels, torch.zeros(2500).long()))
    for channel in range(3):
        values = pixels[:, channel].numpy().astype("float64") / 255
        assert mean[channel] == pytest.approx(values.mean(), rel=1e-12)
        assert std[channel] == pytest.approx(values.std(), rel=1e-12)
