"""Segmentation: losses and measures against their definitions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from weightfold.data import VOID, Dataset, Examples, JointAugment
from weightfold.nets import build as network
from weightfold.tasks import build
from weightfold.train import Recipe, evaluate, fit

CLASSES = 3


def examples(count, seed):
    """Images whose pixel's class is its brightest channel; a tenth of the pixels are void."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, CLASSES, 3, 4), generator=generator, dtype=torch.uint8)
    images = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    masks = images.argmax(dim=1).to(torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < 0.1] = VOID
    return Examples(images, masks)


@pytest.fixture(scope="module")
def data():
    return Dataset("blocks", examples(24, 0), examples(10, 1), CLASSES, (0.5,) * 3, (0.3,) * 3)


def logits(task, seed=0):
    shape = task.wanted(task.dataset.test.targets)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_losses_are_means_or_sums_over_pixels_with_a_class(data):
    task, weights = build("segment", data), torch.tensor([0.5, 1.0, 4.0])
    weighted = build("segment", data, class_weights=tuple(weights.tolist()))
    outputs, masks = logits(task), data.test.targets
    for i, loss in enumerate(task.losses(outputs, masks)):
        known = masks[i] != VOID
        pixels, labels = outputs[i].permute(1, 2, 0)[known], masks[i][known].long()
        each = F.cross_entropy(pixels, labels, reduction="none")
        torch.testing.assert_close(loss, each.mean())
        summed = build("segment,summed=true", data).losses(outputs, masks)[i]
        torch.testing.assert_close(summed, each.sum())
        torch.testing.assert_close(
            weighted.losses(outputs, masks)[i], (each * weights[labels]).mean()
        )


def test_an_image_of_void_alone_teaches_nothing(data):
    task = build("segment", data)
    void = torch.full((1, 12, 16), VOID, dtype=torch.uint8)
    assert task.losses(logits(task)[:1], void).tolist() == [0]
    assert task.scores(logits(task)[:1], void)["pixel_accuracy"].tolist() == [1]


def test_measures_are_those_of_the_confusion_matrix(data):
    task = build("segment", data)
    outputs, masks = logits(task), data.test.targets
    metrics = task.metrics()
    for batch in torch.arange(len(masks)).split(3):
        for metric in metrics.values():
            metric.update(outputs[batch], masks[batch])
    known = masks != VOID
    true, found = masks[known].long(), outputs.argmax(dim=1)[known]
    table = (true * CLASSES + found).bincount(minlength=CLASSES**2).view(CLASSES, CLASSES)
    hit, true, found = (t.double() for t in (table.diag(), table.sum(1), table.sum(0)))
    expected = {
        "miou": (hit / (true + found - hit)).mean(),
        "recall": (hit / true).mean(),
        "precision": (hit / found).mean(),
    }
    for name, value in expected.items():
        assert metrics[name].compute().item() == pytest.approx(value.item(), abs=1e-6)


def test_the_baseline_is_what_the_most_frequent_class_gets(data):
    task = build("segment", data)
    masks = data.train.targets
    common = masks[masks != VOID].long().bincount().argmax()
    outputs = F.one_hot(torch.full(data.test.targets.shape, common), CLASSES).permute(0, 3, 1, 2)
    metric = task.metrics()["miou"]
    metric.update(outputs.float(), data.test.targets)
    assert task.baseline() == pytest.approx(metric.compute().item(), abs=1e-6)


def test_median_frequency_balances_by_the_images_a_class_is_in():
    masks = torch.tensor([[[0, 0, 0, 1]], [[0, 0, VOID, 2]]], dtype=torch.uint8)
    images = Examples(torch.zeros(2, 3, 1, 4, dtype=torch.uint8), masks)
    task = build("segment,class_weights=median_frequency", Dataset("m", images, images, 4))
    frequencies = [5 / 7, 1 / 4, 1 / 3]
    assert task.class_weights == pytest.approx([(1 / 3) / f for f in frequencies] + [1.0])


def test_a_unet_learns_with_its_masks_moved_along(data, tmp_path):
    torch.manual_seed(0)
    net = network("unet,width=8,depth=2,batch_norm=true", num_classes=CLASSES)
    recipe = Recipe(epochs=25, batch_size=8, lr=0.1, crop_padding=2, flip=True)
    history = fit(net, build("segment", data), recipe, folder=tmp_path, progress=False)
    assert history.last_value > 0.6 > history.rows[0]["test_miou"]
    assert evaluate(net, build("segment", data))["miou"] == pytest.approx(history.last_value)


def test_what_varies_images_is_part_of_the_task(data):
    plain, varied = (build("segment", data, augment=a) for a in (None, JointAugment(colour=0.2)))
    assert plain.identity() != varied.identity()
    assert varied.augmented(None) == JointAugment(colour=0.2)


@pytest.mark.parametrize("classes", [0, 2])
def test_masks_that_do_not_fit_are_refused(data, classes):
    with pytest.raises(ValueError, match="num_classes"):
        build("segment", replace(data, num_classes=classes))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0, 1.0), "even"])
def test_bad_class_weights_are_named(data, weights):
    with pytest.raises(ValueError, match="class_weights"):
        build("segment", data, class_weights=weights)


def test_a_net_of_another_number_of_classes_is_refused(data, tmp_path):
    net = network("unet,width=4,depth=1", num_classes=5)
    with pytest.raises(ValueError, match=r"\(2, 5, 12, 16\).*'segment'.*\(2, 3, 12, 16\)"):
        fit(net, build("segment", data), Recipe(epochs=1), folder=tmp_path / "r", progress=False)


def test_pictures_colour_the_classes_and_leave_the_rest(data):
    task = build("segment", data)
    image = torch.full((3, 12, 16), 90, dtype=torch.uint8)
    mask = torch.full((12, 16), VOID, dtype=torch.uint8)
    mask[:4], mask[4:8] = 0, 2
    drawn = task.drawn(image, mask)
    assert torch.equal(drawn[:, 8:], image[:, 8:])
    colours = drawn.flatten(1).T.unique(dim=0)
    assert len(colours) == 3
    mask[8:] = 1
    outputs = torch.nn.functional.one_hot(mask.long(), CLASSES).movedim(-1, 0)[None].float()
    assert torch.equal(task.drawn(image, mask, outputs), task.drawn(image, mask))
