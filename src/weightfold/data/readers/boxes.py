"""Images with boxes: the layouts of PASCAL VOC and COCO."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from weightfold.data.budget import check_bytes
from weightfold.data.dataset import Dataset, Examples, mean_and_std
from weightfold.data.decode import decode
from weightfold.data.registry import reader
from weightfold.data.scenes import decoded

_SIZE = 224


@dataclass
class _Image:
    """An image file and what is written of its objects.

    Attributes:
        path: The image.
        source: Where its objects are written, for errors.
        objects: Class, left, top, right, bottom in pixels, and whether it is to be overlooked.
    """

    path: Path
    source: Path
    objects: list[tuple[str, list[float], bool]] = field(default_factory=list)


@reader("voc")
def voc(*, path: str, height: int = _SIZE, width: int = _SIZE, drop_bad: bool = False) -> Dataset:
    """VOC's layout: JPEGImages, Annotations/*.xml and ImageSets/Main, for task detect.

    Training images are those of trainval.txt if test.txt is there too and val.txt is not, else of
    train.txt; val.txt is the validation set, or the test set where there is no test.txt. Classes
    are the lines of classes.txt in the folder, else all names that occur, in order. Images are
    brought to `height` x `width` (bilinear), boxes with them; coordinates count as given, from the
    image's left and top edge. Objects marked difficult are overlooked, as in VOC's evaluation.
    `drop_bad` drops boxes that have no area or lie outside their image, which are refused else.
    """
    home = Path(path).expanduser()
    lists = home / "ImageSets" / "Main"
    there = {name: (lists / f"{name}.txt").is_file() for name in ("trainval", "test", "val")}
    whole = there["trainval"] and there["test"] and not there["val"]
    splits = {"train": "trainval" if whole else "train", "test": "test" if there["test"] else "val"}
    if there["test"] and there["val"]:
        splits["validation"] = "val"
    parts = {part: _voc_images(home, lists / f"{split}.txt") for part, split in splits.items()}
    return _dataset(home, parts, _classes(home), (height, width), drop_bad)


@reader("voc0712")
def voc0712(
    *, path: str, height: int = _SIZE, width: int = _SIZE, drop_bad: bool = False
) -> Dataset:
    """VOC2007/ and VOC2012/ in one folder: trained on trainval of both, tested on that of 2007.

    The usual split of PASCAL VOC for task detect; as "voc" else.
    """
    old, new = (Path(path).expanduser() / f"VOC{year}" for year in (2007, 2012))
    lists = Path("ImageSets", "Main")
    parts = {
        "train": [i for top in (old, new) for i in _voc_images(top, top / lists / "trainval.txt")],
        "test": _voc_images(old, old / lists / "test.txt"),
    }
    found = _dataset(old.parent, parts, _classes(old), (height, width), drop_bad)
    return replace(found, name="voc0712")


def _voc_images(home: Path, listed: Path) -> list[_Image]:
    if not listed.is_file():
        raise FileNotFoundError(f"{listed} is missing; it lists the images, one a line")
    stems = [line.split()[0] for line in listed.read_text("utf-8").splitlines() if line.strip()]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda stem: _voc_image(home, stem), stems))


@reader("bccd", "BCCD/ in VOC's layout (github.com/Shenggan/BCCD_Dataset)")
def bccd(root: Path, *, height: int = _SIZE, width: int = _SIZE) -> Dataset:
    """BCCD: blood cells under a microscope with boxes of 3 classes, for task detect."""
    return replace(voc(path=str(root / "BCCD"), height=height, width=width), name="bccd")


@reader("cards", "cards/ in VOC's layout")
def cards(root: Path, *, height: int = _SIZE, width: int = _SIZE) -> Dataset:
    """Photographs of playing cards with boxes of 6 classes, for task detect."""
    return replace(voc(path=str(root / "cards"), height=height, width=width), name="cards")


@reader("coco")
def coco(*, path: str, height: int = _SIZE, width: int = _SIZE, drop_bad: bool = False) -> Dataset:
    """COCO's layout: annotations/instances_{train,val}*.json, and train*/, val*/, for task detect.

    The test set is val, whose boxes are public. Images are brought to `height` x `width`
    (bilinear), boxes with them. Crowds are overlooked, as in COCO's evaluation. `drop_bad` drops
    boxes that have no area or lie outside their image, which are refused else.
    """
    home = Path(path).expanduser()
    parts, names = {}, None
    for part, split in (("train", "train"), ("test", "val")):
        found = sorted((home / "annotations").glob(f"instances_{split}*.json"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"{home / 'annotations'} has {len(found)} files instances_{split}*.json; one is "
                "wanted"
            )
        folder = home / found[0].stem.removeprefix("instances_")
        parts[part], classes = _coco_images(found[0], folder)
        if names not in (None, classes):
            raise ValueError(f"{found[0]} has other categories than that of train; make them alike")
        names = classes
    return _dataset(home, parts, names, (height, width), drop_bad)


def _voc_image(home: Path, stem: str) -> _Image:
    source = home / "Annotations" / f"{stem}.xml"
    named = next(
        (
            home / "JPEGImages" / f"{stem}{end}"
            for end in (".jpg", ".jpeg", ".png", ".JPG")
            if (home / "JPEGImages" / f"{stem}{end}").is_file()
        ),
        None,
    )
    for file, there in ((home / "JPEGImages" / f"{stem}.jpg", named), (source, source.is_file())):
        if not there:
            raise FileNotFoundError(f"{file} is missing")
    assert named is not None
    check_bytes(source, source.stat().st_size)
    image = _Image(named, source)
    try:
        for item in ElementTree.parse(source).getroot().findall("object"):
            box = item.find("bndbox")
            assert box is not None
            corners = [float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            difficult = item.findtext("difficult", "0").strip() == "1"
            image.objects.append((item.findtext("name", "").strip(), corners, difficult))
    except (ElementTree.ParseError, ValueError, AssertionError) as error:
        raise ValueError(
            f"{source} is damaged ({error}); an object has name and bndbox with xmin, ymin, xmax, "
            "ymax"
        ) from error
    return image


def _coco_images(file: Path, folder: Path) -> tuple[list[_Image], list[str]]:
    check_bytes(file, file.stat().st_size)
    try:
        content = json.loads(file.read_bytes())
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
        images = {i["id"]: _Image(folder / i["file_name"], file) for i in content["images"]}
        for item in content["annotations"]:
            left, top, width, height = (float(value) for value in item["bbox"])
            box = [left, top, left + width, top + height]
            crowd = bool(item.get("iscrowd", 0))
            images[item["image_id"]].objects.append((categories[item["category_id"]], box, crowd))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no file of instances in COCO's form ({error!r})") from error
    for image in images.values():
        if folder not in image.path.parents or ".." in image.path.parts:
            raise ValueError(f"{file} names the image {image.path}, outside {folder}")
    return list(images.values()), list(categories.values())


def _classes(home: Path) -> list[str] | None:
    listed = home / "classes.txt"
    if not listed.is_file():
        return None
    return [line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()]


def _dataset(
    home: Path,
    parts: dict[str, list[_Image]],
    classes: Sequence[str] | None,
    size: tuple[int, int],
    drop_bad: bool,
) -> Dataset:
    """The data set of images and their boxes.

    Raises:
        ValueError: As said in the readers.
    """
    if min(size) < 1:
        raise ValueError(f"height={size[0]}, width={size[1]} must be at least 1")
    for part, images in parts.items():
        if not images:
            raise ValueError(f"{home}: no image in {part}")
    if classes is None:
        found = {
            name for images in parts.values() for image in images for name, *_ in image.objects
        }
        classes = sorted(found)
    if not classes:
        raise ValueError(f"{home}: no object of any class")
    count = sum(map(len, parts.values()))
    check_bytes(f"{home} at height={size[0]}, width={size[1]}", 3 * count * size[0] * size[1])
    numbers = {name: label for label, name in enumerate(classes)}
    examples, dropped = {}, 0
    for part, images in parts.items():
        read: Callable[[_Image], Any] = lambda image: _example(image, numbers, size, drop_bad)  # noqa: E731
        with ThreadPoolExecutor() as pool:
            rows = list(pool.map(read, images))
        pixels, targets, bad = zip(*rows, strict=True)
        dropped += sum(bad)
        examples[part] = Examples(torch.stack(pixels), list(targets))
    mean, std = mean_and_std(examples["train"])
    record: dict[str, Any] = {"source": home.name}
    if dropped:
        record["dropped_boxes"] = dropped
    return Dataset(
        home.name,
        examples["train"],
        examples["test"],
        len(classes),
        mean,
        std,
        tuple(classes),
        record,
        validation=examples.get("validation"),
    )


def _example(
    image: _Image, numbers: dict[str, int], size: tuple[int, int], drop_bad: bool
) -> tuple[Tensor, dict[str, Tensor], int]:
    """uint8 (3, *size), its boxes in pixels of that size, and how many were dropped."""
    pixels = decoded(image.path, lambda path: decode(path, channels=3))
    height, width = pixels.shape[1:]
    boxes, labels, crowds, dropped = [], [], [], 0
    for name, box, crowd in image.objects:
        if name not in numbers:
            raise ValueError(
                f"{image.source} has an object of class {name!r} in {image.path.name}, which is "
                f"none of {', '.join(numbers)}"
            )
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            if not drop_bad:
                raise ValueError(
                    f"{image.source}: the box {box} of a {name} in {image.path.name} has no area, "
                    f"or lies outside the image of {width} x {height}; give drop_bad=true to drop "
                    "such boxes"
                )
            dropped += 1
            continue
        boxes.append(box)
        labels.append(numbers[name])
        crowds.append(crowd)
    sides = torch.tensor([size[1] / width, size[0] / height] * 2)
    targets = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4) * sides,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "iscrowd": torch.tensor(crowds, dtype=torch.bool),
    }
    return transforms.resize(pixels, list(size), antialias=True), targets, dropped
