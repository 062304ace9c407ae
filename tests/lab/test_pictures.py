"""A comparison's page shows what networks say of single images, where the task draws it."""

import pytest

from weightfold.lab.compare import compare
from weightfold.lab.run import Execution
from weightfold.train import Recipe

RECIPE = Recipe(epochs=1, batch_size=80, lr=1e-3, schedule="constant", crop_padding=0, flip=False)


@pytest.mark.parametrize(
    ("task", "data", "model", "variant"),
    [
        ("detect,anchors=2", "digit_boxes", "yolo_lite,width=2", "cl,rate=2,where=backbone.*"),
        ("segment", "digit_masks", "unet,width=2,depth=1", "cl,rate=2,where=down1.*+down2.conv1"),
        ("classify", "digits,limit=160", "digitnet", "cl,rate=2"),
    ],
)
def test_the_worst_and_the_best_images_of_every_variant(task, data, model, variant, tmp_path):
    found = compare(
        model,
        data,
        ("compact", variant),
        recipe=RECIPE,
        folder=tmp_path,
        seeds=2,
        task=task,
        execution=Execution(progress=False),
    )
    page = found.page.read_text(encoding="utf-8")
    draws = task != "classify"
    assert ("Worst and best test images" in page) == draws
    assert (tmp_path / "pictures.png").exists() == draws
    if draws:
        drawing = (tmp_path / "pictures.svg").read_text(encoding="utf-8")
        # 4 images: what is true, the plain network's view, the expanded one's
        assert drawing.count("<image ") == 4 * 3
        assert found.deployed.onnx_value == pytest.approx(found.deployed.test_value, abs=1e-3)
