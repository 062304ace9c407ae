"""Detection: the grid, its loss and its measures against plain loops."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import box_iou

from weightfold.data import Dataset, Examples, JointAugment
from weightfold.export import onnx_runner, to_onnx
from weightfold.nets import build as network
from weightfold.tasks import build
from weightfold.tasks.grid import Grid, fit_anchors, shape_iou
from weightfold.tasks.registry import recorded
from weightfold.train import Recipe, evaluate, fit

SIDE, CLASSES = 64, 2
GRID = Grid(((0.1, 0.2), (0.3, 0.3), (0.6, 0.4)), CLASSES)


def scenes(count, seed):
    """Bright squares (class 0) and wide bars (class 1) on a dark ground; some images are empty."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    targets = []
    for i in range(count):
        boxes, labels = [], []
        for label, (width, height) in enumerate(((14, 14), (28, 8))):
            if i % 5 == 4:
                continue
            width, height = width + i % 3, height + i % 2
            left = int(torch.randint(0, SIDE - width, (), generator=generator))
            top = int(torch.randint(0, SIDE - height, (), generator=generator))
            images[i, label, top : top + height, left : left + width] = 255
            boxes.append([left, top, left + width, top + height])
            labels.append(label)
        targets.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
            }
        )
    return Examples(images, targets)


@pytest.fixture(scope="module")
def data():
    return Dataset("shapes", scenes(40, 0), scenes(15, 1), CLASSES, (0.2,) * 3, (0.3,) * 3)


def random_boxes(seed, count):
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed))
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    return torch.cat([low, high], dim=1)


def perfect(grid, boxes, labels, rows, columns):
    """The outputs that say just these boxes."""
    target = {"boxes": boxes, "labels": labels}
    known = grid.assign([target], rows, columns)
    raw = torch.zeros(1, len(grid.anchors), rows, columns, 5 + grid.classes)
    raw[..., 4] = -30
    for (a, r, c), offset, size, label in zip(
        known.place.tolist(), known.offset, known.size, known.label.tolist(), strict=True
    ):
        raw[0, a, r, c, :2] = offset.logit(eps=1e-6)
        raw[0, a, r, c, 2:4] = size
        raw[0, a, r, c, 4] = 30
        raw[0, a, r, c, 5 + label] = 40
    return raw.movedim(-1, 2).flatten(1, 2), known


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 8), st.integers(1, 8))
def test_what_is_assigned_decodes_to_the_boxes(seed, count, rows, columns):
    boxes = random_boxes(seed, count)
    labels = torch.arange(count) % CLASSES
    outputs, known = perfect(GRID, boxes, labels, rows, columns)
    found, scores = GRID.decode(outputs)
    taken = (scores.amax(dim=2) > 0.5)[0]
    assert int(taken.sum()) == len(known.box) <= count
    for box, label in zip(found[0, taken], scores[0, taken].argmax(dim=1), strict=True):
        gap, nearest = (known.box - box).abs().amax(dim=1).min(dim=0)
        assert gap < 1e-4 and label == known.label[nearest]
    # A box is left out only for a smaller one at its place.
    assert all((known.box == box).all(dim=1).any() for box in boxes) or len(known.box) < count


def test_the_smallest_box_has_a_place_that_several_claim():
    boxes = torch.tensor([[0.12, 0.12, 0.48, 0.48], [0.15, 0.15, 0.45, 0.45]])
    known = GRID.assign([{"boxes": boxes, "labels": torch.tensor([0, 1])}], 2, 2)
    assert known.box.tolist() == [boxes[1].tolist()] and known.label.tolist() == [1]


def test_the_loss_is_that_of_a_loop(data):
    task = build("detect,anchors=3", data)
    targets = data.test.targets[:5]
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, task.outputs, 4, 4, generator=generator)
    raw = task.grid.split(outputs)
    boxes = task.grid.boxes(raw)
    for i, target in enumerate(targets):
        true, expected, answering = target["boxes"] / SIDE, 0.0, set()
        for box, label in zip(true, target["labels"], strict=True):
            size = box[2:] - box[:2]
            a = int(shape_iou(size[None], torch.tensor(task.anchors)).argmax())
            x, y = ((box[:2] + box[2:]) / 2 * 4).tolist()
            c, r = int(x), int(y)
            answering.add((a, r, c))
            one, found = raw[i, a, r, c], boxes[i, a, r, c]
            iou = box_iou(found[None], box[None]).item()
            position = (one[0].sigmoid() - (x - c)) ** 2 + (one[1].sigmoid() - (y - r)) ** 2
            shape = sum(
                (one[2 + k] - math.log(size[k] / task.anchors[a][k])) ** 2 for k in range(2)
            )
            expected += (2 - size.prod()) * (position + shape)
            expected += 5 * (one[4].sigmoid() - iou) ** 2
            expected += torch.nn.functional.cross_entropy(one[5:], label)
        for a in range(3):
            for r in range(4):
                for c in range(4):
                    met = len(true) and box_iou(boxes[i, a, r, c][None], true).max() > 0.6
                    if (a, r, c) not in answering and not met:
                        expected += raw[i, a, r, c, 4].sigmoid() ** 2
        torch.testing.assert_close(task.losses(outputs, targets)[i], torch.as_tensor(expected))


def test_a_perfect_detector_has_average_precision_1(data):
    task = build("detect,anchors=2", data)
    outputs = torch.cat(
        [
            perfect(task.grid, target["boxes"] / SIDE, target["labels"], 8, 8)[0]
            for target in data.test.targets
        ]
    )
    metric = task.metrics()["map50"]
    metric.update(outputs, data.test.targets)
    assert {n: v.item() for n, v in metric.compute().items()} == pytest.approx(
        {"map50": 1, "map": 1, "map50_voc07": 1}
    )
    assert task.scores(outputs, data.test.targets)["box_iou"].min() > 0.999


def test_what_is_to_be_overlooked_is_neither_learnt_nor_judged(data):
    task = build("detect,anchors=2", data)
    target = {**data.test.targets[0], "iscrowd": torch.tensor([False, True])}
    kept = {name: value[:1] for name, value in data.test.targets[0].items()}
    outputs = torch.randn(1, task.outputs, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(task.losses(outputs, [target]), task.losses(outputs, [kept]))
    metric = task.metrics()["map50"]
    metric.compare([{**kept, "scores": torch.ones(1)}], [target])
    assert metric.compute()["map50"].item() == pytest.approx(1)


def test_anchors_are_the_sizes_there_are():
    sizes = torch.tensor([[0.1, 0.1]] * 9 + [[0.5, 0.2]] * 3 + [[0.2, 0.6]])
    found = torch.tensor(fit_anchors(sizes, 3))
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.1], [0.5, 0.2], [0.2, 0.6]]))
    with pytest.raises(ValueError, match="anchors=4"):
        fit_anchors(sizes, 4)


def test_a_detector_learns_with_its_boxes_moved_along(data, tmp_path):
    task = build("detect,anchors=2", data, augment=JointAugment(scale=(0.9, 1.1), crop_padding=4))
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, task.outputs, 3, padding=1),
    )
    recipe = Recipe(epochs=15, batch_size=8, lr=0.02, clip_norm=10)
    history = fit(net, task, recipe, folder=tmp_path, progress=False)
    assert history.last_value > max(0.2, 2 * task.baseline())
    assert evaluate(net, task)["map50"] == pytest.approx(history.last_value)


def test_a_net_of_other_anchors_or_classes_is_refused(data, tmp_path):
    net = network("yolo_lite,width=2", num_classes=20)
    with pytest.raises(ValueError, match=r"\(2, 20\).*'detect'.*\(2, 35\)"):
        fit(net, build("detect", data), Recipe(epochs=1), folder=tmp_path / "r", progress=False)


def test_data_without_boxes_is_refused(data):
    part = Examples(data.train.inputs, torch.zeros(len(data.train), dtype=torch.int64))
    with pytest.raises(ValueError, match=r"targets.*boxes"):
        build("detect", replace(data, train=part, test=part))
    with pytest.raises(ValueError, match="num_classes"):
        build("detect", replace(data, num_classes=0))


def test_pictures_show_boxes_where_they_are(data):
    task = build("detect", data, anchors=GRID.anchors)
    target = {name: values[:1] for name, values in data.test.targets[0].items()}
    boxes, labels = target["boxes"] / SIDE, target["labels"]
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    true = task.drawn(image, target)
    outputs, _ = perfect(GRID, boxes, labels, 8, 8)
    assert torch.equal(task.drawn(image, target, outputs), true)
    times = true.shape[1] // SIDE
    left, top, *_ = (target["boxes"][0] * times).int().tolist()
    assert true[:, top + 20, left].any() and not true[:, -1, 0].any()
    assert not task.drawn(image, data.test.targets[4]).any()  # without boxes


@pytest.mark.parametrize("anchors", [(), ((0.1,),), ((0.1, 0.0),)])
def test_bad_anchors_are_named(data, anchors):
    with pytest.raises(ValueError, match="anchors="):
        build("detect", data, anchors=anchors)


def test_a_recorded_task_is_the_same_again(data):
    task = build("detect,anchors=2", data)
    assert recorded(json.loads(json.dumps(task.identity())), data, "run.json").anchors == (
        task.anchors
    )
    for damage in ({"anchors": [["a", 1]]}, {"anchors": [3]}, {"name": "nothing"}):
        with pytest.raises(ValueError, match=r"run\.json"):
            recorded({**task.identity(), **damage}, data, "run.json")


def test_boxes_are_found_inside_the_graph_too(data, tmp_path):
    task = build("detect", data, anchors=GRID.anchors)
    torch.manual_seed(0)
    net = network("yolo_lite,width=2,batch_norm=true", num_classes=task.outputs).eval()
    images = data.normalize(data.test.inputs[:4])
    finder = task.decoded(net)
    # Sizes are exponentials: of noise 1000 times as large as images their rounding is 6e-5.
    to_onnx(finder, images[:1], tmp_path / "decoded.onnx", tolerance=1e-4)
    rows = onnx_runner(tmp_path / "decoded.onnx")(images)
    torch.testing.assert_close(rows, finder(images).detach())
    assert (rows[:, 2].diff() <= 0).all()
    for i, found in enumerate(task.detect(net(images))):
        own = rows[rows[:, 0] == i][:100]  # of an image, detect keeps as many
        torch.testing.assert_close(own[:, 2], found["scores"].detach())
        torch.testing.assert_close(SIDE * own[:, 3:], found["boxes"].detach())
        assert own[:, 1].tolist() == found["labels"].tolist()
