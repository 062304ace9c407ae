import pytest
import torch
from torchvision.transforms import functional as transforms

from weightfold.data import Augment, Batches, Examples

MEAN, STD = (0.3, 0.5, 0.6), (0.2, 0.25, 0.3)
# x * scale - shift, each rounded to float32, with |x * scale| and |shift| at most 5.
ROUNDING = 4 * 5 * 2**-24


def image_set(count=50, channels=3, height=8, width=6, seed=0):
    """Random images whose label is their place in the set."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Examples(pixels, torch.arange(count))


def batches(images=None, **changes):
    given = {"batch_size": 16, "mean": MEAN, "std": STD, "augment": Augment(), "seed": 0}
    return Batches(images or image_set(), **given | changes)


def normalised(image):
    return transforms.normalize(image.double() / 255, MEAN, STD).float()


def same(epochs):
    """Whether two epochs show the same images, and the same labels."""
    pairs = [[torch.cat(part) for part in zip(*epoch, strict=True)] for epoch in epochs]
    return tuple(torch.equal(*part) for part in zip(*pairs, strict=True))


@pytest.mark.parametrize("padding", [0, 2, 4, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_and_flip_are_those_of_a_loop_over_images(padding, channels):
    images = image_set(channels=channels).inputs
    augment = Augment(crop_padding=padding)
    draws = augment.draw(len(images), torch.Generator().manual_seed(1))
    varied, _ = augment.apply(images, None, draws)
    for image, (top, left, flip), found in zip(images, draws.tolist(), varied, strict=True):
        expected = transforms.crop(transforms.pad(image, padding), top, left, 8, 6)
        assert torch.equal(found, transforms.hflip(expected) if flip else expected)


def test_every_crop_and_both_flips_are_equally_likely():
    # One image of 15 x 15 different grays: the middle pixel tells the crop, the next the flip.
    grays = (1 + torch.arange(225)).to(torch.uint8).view(1, 1, 15, 15)
    count = 2 * 81 * 100
    same_image = Examples(grays.expand(count, 1, 15, 15), torch.zeros(count).long())
    feed = batches(same_image, batch_size=4000, mean=(0.0,), std=(1.0,))
    x = torch.cat([x for x, _ in feed.epoch(0)])
    middle = (x[:, 0, 7, 7] * 255).round().long() - 1
    step = (x[:, 0, 7, 8] * 255).round().long() - 1 - middle
    assert set(step.tolist()) == {1, -1}
    row, column, flip = middle // 15 - 3, middle % 15 - 3, (step < 0).long()
    counts = ((row * 9 + column) * 2 + flip).bincount(minlength=162).double()
    assert len(counts) == 162
    chi_square = ((counts - 100).square() / 100).sum().item()
    assert chi_square < 236  # 161 degrees of freedom, p = 1e-4


def test_padding_is_black_before_normalisation():
    white = Examples(torch.full((200, 3, 4, 4), 255, dtype=torch.uint8), torch.zeros(200).long())
    x, _ = next(batches(white, batch_size=200).epoch(0))
    black = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)]).view(3, 1, 1)
    bright = torch.tensor([(1 - m) / s for m, s in zip(MEAN, STD, strict=True)]).view(3, 1, 1)
    is_black, is_white = ((x - v).abs() < ROUNDING for v in (black, bright))
    assert (is_black | is_white).all()
    assert is_black.any()
    assert is_white.any()


def test_an_epoch_shows_every_image_once_normalised():
    images = image_set()
    feed = batches(images, augment=None)
    epoch = list(feed.epoch(0))
    assert [len(y) for _, y in epoch] == [16, 16, 16, 2]
    assert len(feed) == 4
    labels = torch.cat([y for _, y in epoch])
    assert sorted(labels.tolist()) == list(range(50)) != labels.tolist()
    for x, y in epoch:
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        for image, label in zip(x, y, strict=True):
            expected = normalised(images.inputs[label])
            assert torch.allclose(image, expected, rtol=0, atol=ROUNDING)


def test_augmented_images_are_crops_of_the_image_their_label_names():
    images = image_set(20)
    padded = transforms.pad(images.inputs, 2)
    for x, y in batches(images, augment=Augment(crop_padding=2)).epoch(3):
        for image, label in zip(x, y, strict=True):
            crops = [padded[label, :, t : t + 8, u : u + 6] for t in range(5) for u in range(5)]
            crops += [crop.flip(-1) for crop in crops]
            assert any(
                torch.allclose(image, normalised(crop), rtol=0, atol=ROUNDING) for crop in crops
            )


def test_an_epoch_depends_on_seed_and_index_only():
    fresh, used = batches(), batches()
    list(used.epoch(0))
    torch.manual_seed(99)
    assert same([used.epoch(5), fresh.epoch(5)]) == (True, True)
    assert same([fresh.epoch(5), fresh.epoch(6)]) == (False, False)
    assert same([fresh.epoch(5), batches(seed=1).epoch(5)]) == (False, False)
    # Seed and index are no sum.
    assert same([batches(seed=1).epoch(2), batches(seed=2).epoch(1)]) == (False, False)


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    list(batches().epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_shuffling_the_order_is_that_of_the_set():
    feed = batches(augment=None, shuffle=False)
    assert torch.cat([y for _, y in feed.epoch(4)]).tolist() == list(range(50))


def test_drop_last_leaves_out_the_smaller_batch_only():
    feed = batches(drop_last=True)
    assert [len(y) for _, y in feed.epoch(0)] == [16, 16, 16]
    assert len(feed) == 3
    assert len(batches(image_set(48), drop_last=True)) == len(batches(image_set(48))) == 3


def test_augmentation_leaves_the_set_as_it_is():
    images = image_set()
    before = images.inputs.clone()
    list(batches(images).epoch(0))
    assert torch.equal(images.inputs, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 64, "drop_last": True}, "leaves no batch"),
        ({"mean": (0.5,)}, "mean has 1 entries; the inputs have 3 channels"),
        ({"std": (0.5,)}, "std has 1 entries; the inputs have 3 channels"),
    ],
)
def test_wrong_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(**changes)


def test_a_negative_padding_is_refused():
    with pytest.raises(ValueError, match="crop_padding=-1"):
        Augment(crop_padding=-1)
