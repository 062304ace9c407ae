"""Readers of images with boxes, on small generated copies of their layouts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from weightfold.data import load

HEIGHT, WIDTH = 20, 40


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def annotate(home, stem, objects):
    """An annotation of (name, corners, difficult)."""
    items = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(
            f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box, difficult in objects
    )
    (home / "Annotations").mkdir(exist_ok=True)
    (home / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{items}</annotation>")
    photo(home / "JPEGImages" / f"{stem}.jpg")


@pytest.fixture
def home(tmp_path):
    annotate(tmp_path, "a", [("dog", (4, 2, 12, 10), 0), ("cat", (0, 0, 40, 20), 1)])
    annotate(tmp_path, "b", [])
    annotate(tmp_path, "c", [("cat", (10, 10, 20, 20), 0)])
    lists(tmp_path, train="ab", test="c")
    return tmp_path


def lists(home, **splits):
    folder = home / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in splits.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")


def test_voc_boxes_are_scaled_with_their_images(home):
    data = load(f"voc,path={home},height=10,width=10")
    assert data.class_names == ("cat", "dog") and data.shape == (3, 10, 10)
    first, empty = data.train.targets
    assert first["boxes"].tolist() == [[1.0, 1.0, 3.0, 5.0], [0.0, 0.0, 10.0, 10.0]]
    assert first["labels"].tolist() == [1, 0] and first["iscrowd"].tolist() == [False, True]
    assert empty["boxes"].shape == (0, 4) and empty["labels"].dtype == torch.int64
    assert data.validation is None


def test_voc_parts_are_those_that_the_lists_give(home):
    lists(home, val="b")
    assert set(load(f"voc,path={home}").parts) == {"train", "test", "validation"}
    (home / "ImageSets" / "Main" / "val.txt").unlink()
    lists(home, trainval="abc")
    assert len(load(f"voc,path={home}").train) == 3
    (home / "ImageSets" / "Main" / "test.txt").unlink()
    lists(home, val="c")
    data = load(f"voc,path={home}")
    assert (len(data.train), len(data.test)) == (2, 1)


def test_voc0712_trains_on_both_years_and_tests_on_2007(tmp_path):
    for year, names in (("VOC2007", "abcd"), ("VOC2012", "ef")):
        (tmp_path / year).mkdir()
        for name in names:
            annotate(tmp_path / year, name, [("dog", (4, 2, 12, 10), 0)])
    lists(tmp_path / "VOC2007", train="a", val="b", trainval="ab", test="cd")
    lists(tmp_path / "VOC2012", train="e", val="f", trainval="ef")
    data = load(f"voc0712,path={tmp_path},height=10,width=10")
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 4, "test": 2}
    (tmp_path / "VOC2012" / "ImageSets" / "Main" / "trainval.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"VOC2012.*trainval\.txt"):
        load(f"voc0712,path={tmp_path}")


def test_coco_layout(tmp_path):
    for split in ("train2017", "val2017"):
        photo(tmp_path / split / "1.jpg")
        content = {
            "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
            "images": [{"id": 9, "file_name": "1.jpg"}],
            "annotations": [
                {"image_id": 9, "category_id": 3, "bbox": [4, 2, 8, 8], "iscrowd": 0},
                {"image_id": 9, "category_id": 18, "bbox": [0, 0, 40, 20], "iscrowd": 1},
            ],
        }
        folder = tmp_path / "annotations"
        folder.mkdir(exist_ok=True)
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    data = load(f"coco,path={tmp_path},height=20,width=40")
    assert data.class_names == ("dog", "car")
    target = data.test.targets[0]
    assert target["boxes"].tolist() == [[4, 2, 12, 10], [0, 0, 40, 20]]
    assert target["labels"].tolist() == [1, 0] and target["iscrowd"].tolist() == [False, True]
    content["images"][0]["file_name"] = "../../secret.jpg"
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"secret\.jpg"):
        load(f"coco,path={tmp_path}")


@pytest.mark.parametrize("box", [(4, 2, 41, 10), (-1, 0, 5, 5), (5, 5, 5, 9), (9, 2, 4, 10)])
def test_a_bad_box_is_named_by_its_file_and_dropped_only_when_asked(home, box):
    annotate(home, "b", [("dog", box, 0), ("dog", (1, 1, 2, 2), 0)])
    with pytest.raises(ValueError, match=r"b\.xml.*b\.jpg.*drop_bad"):
        load(f"voc,path={home}")
    data = load(f"voc,path={home},drop_bad=true")
    assert len(data.train.targets[1]["boxes"]) == 1 and data.record["dropped_boxes"] == 1


def test_a_class_that_is_not_listed_is_named(home):
    (home / "classes.txt").write_text("dog\n")
    with pytest.raises(ValueError, match=r"xml.*'cat'.*dog"):
        load(f"voc,path={home}")


def spoil_image(home):
    (home / "JPEGImages" / "b.jpg").write_bytes(b"nothing")


def spoil_missing(home):
    (home / "JPEGImages" / "b.jpg").unlink()


def spoil_cut(home):
    file = home / "Annotations" / "b.xml"
    file.write_text("<annotation><object>")


def spoil_corner(home):
    annotate(home, "b", [("dog", (1, 1, "x", 2), 0)])


@pytest.mark.parametrize("spoil", [spoil_image, spoil_missing, spoil_cut, spoil_corner])
def test_the_file_that_is_wrong_is_named(home, spoil):
    spoil(home)
    with pytest.raises((ValueError, FileNotFoundError), match=r"b\.(jpg|xml)"):
        load(f"voc,path={home}")
