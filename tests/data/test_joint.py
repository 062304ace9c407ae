"""Augmentation that moves images with their masks and boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightfold.data import VOID, JointAugment

HEIGHT, WIDTH = 40, 56


def scene(top, left, height, width):
    """An image with one white rectangle, its mask of class 1, and its box."""
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[:, top : top + height, left : left + width] = 255
    boxes = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float32)
    return image, (image[0] > 0).to(torch.uint8), {"boxes": boxes, "labels": torch.tensor([7])}


rectangles = st.tuples(
    st.integers(0, 20), st.integers(0, 30), st.integers(8, 20), st.integers(8, 26)
)
augments = st.builds(
    JointAugment,
    flip=st.booleans(),
    scale=st.sampled_from([(1.0, 1.0), (0.5, 2.0), (0.7, 0.8)]),
    crop_padding=st.sampled_from([0, 5]),
)


@settings(max_examples=60, deadline=None)
@given(rectangles, augments, st.integers(0, 2**31))
def test_masks_and_boxes_go_where_the_image_goes(rectangle, augment, seed):
    image, mask, target = scene(*rectangle)
    draws = augment.draw(1, torch.Generator().manual_seed(seed))
    moved, masks = augment.apply(image[None], mask[None], draws)
    again, boxes = augment.apply(image[None], [target], draws)
    assert torch.equal(moved, again)
    assert moved.shape == (1, 3, HEIGHT, WIDTH) and masks.shape == (1, HEIGHT, WIDTH)
    white, inside = moved[0, 0] > 127, masks[0] == 1
    # At an edge that scaling blurs, the image and the nearest pixel's class may differ.
    assert (white ^ inside).sum() <= 2 * (HEIGHT + WIDTH)
    if inside.any() and len(boxes[0]["boxes"]):
        rows, columns = inside.nonzero().T
        found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (boxes[0]["boxes"][0] - found).abs().max() <= 1.5
        assert boxes[0]["labels"].tolist() == [7]


def test_what_lies_outside_is_void_and_black():
    image, mask, _ = scene(10, 10, 20, 20)
    augment = JointAugment(flip=False, scale=(0.5, 0.5))
    draws = augment.draw(1, torch.Generator().manual_seed(0))
    moved, masks = augment.apply(image[None] + 5, mask[None], draws)
    outside = masks[0] == VOID
    assert outside.sum() == HEIGHT * WIDTH * 3 // 4
    assert (moved[0, :, outside] == 0).all() and (moved[0, :, ~outside] > 0).all()


def test_boxes_mostly_outside_are_dropped():
    image, _, target = scene(0, 0, 8, 8)
    target = {n: torch.cat([v, v]) for n, v in target.items()}
    target["boxes"][1] = torch.tensor([20.0, 15.0, 36.0, 25.0])
    augment = JointAugment(flip=False, scale=(2.0, 2.0))
    _, found = augment.apply(image[None], [target], torch.full((1, 8), 0.5, dtype=torch.float64))
    assert found[0]["boxes"].shape == (1, 4) and found[0]["labels"].tolist() == [7]


def test_every_second_image_is_flipped_and_colour_changes_no_mask():
    image, mask, _ = scene(5, 5, 10, 10)
    augment = JointAugment(colour=0.4)
    draws = augment.draw(400, torch.Generator().manual_seed(0))
    images, masks = augment.apply(image.expand(400, -1, -1, -1), mask.expand(400, -1, -1), draws)
    flipped = (masks == mask.flip(1)).all(dim=(1, 2))
    assert (flipped | (masks == mask).all(dim=(1, 2))).all()
    assert 150 < flipped.sum() < 250  # five standard deviations
    assert images.dtype == torch.uint8 and len(images.flatten(1).unique(dim=0)) > 100


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", (2.0, 1.0)), ("scale", (0.0, 1.0)), ("colour", 1.0), ("crop_padding", -1)],
)
def test_bad_options_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        JointAugment(**{name: value})


def test_labels_are_refused():
    augment = JointAugment()
    draws = augment.draw(2, torch.Generator())
    with pytest.raises(TypeError, match="targets"):
        augment.apply(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2), draws)
