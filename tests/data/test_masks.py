"""Readers of images with masks, on small generated copies of their layouts."""

import numpy as np
import pytest
import torch
from PIL import Image

from weightfold.data import VOID, load
from weightfold.data.decode import UndecodableImage, decode_mask
from weightfold.data.readers.masks import CITYSCAPES, VOC

HEIGHT, WIDTH = 12, 16


def write(folder, name, numbers, mode="L"):
    """A mask of the numbers, in columns of equal width."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = np.repeat(np.array(numbers, dtype=np.uint8), WIDTH // len(numbers))
    image = Image.fromarray(np.tile(columns, (HEIGHT, 1)))
    if mode == "P":
        image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    image.save(folder / name)


def photo(folder, name, size=(WIDTH, HEIGHT)):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def pairs(tmp_path):
    for split in ("train", "test"):
        for i in range(3):
            photo(tmp_path / split, f"{i}.png")
            write(tmp_path / f"{split}annot", f"{i}.png", [0, 1, 2, 255])
    return tmp_path


def test_masks_hold_class_numbers_whatever_the_palette(tmp_path):
    for mode in ("L", "P"):
        write(tmp_path, f"{mode}.png", [0, 3, 7, 255], mode)
        mask = decode_mask(tmp_path / f"{mode}.png")
        assert mask.dtype == torch.uint8 and mask.shape == (HEIGHT, WIDTH)
        assert mask[0, ::4].tolist() == [0, 3, 7, 255]
    deep = Image.fromarray(np.array([[0, 1], [2, 300]], dtype=np.uint16))
    deep.save(tmp_path / "deep.png")
    photo(tmp_path, "colors.png")
    for name, found in (("deep.png", "300"), ("colors.png", "RGB")):
        with pytest.raises(UndecodableImage, match=found):
            decode_mask(tmp_path / name)


def test_folders_of_pairs(pairs):
    data = load(f"masks,path={pairs},classes=3")
    assert data.train.inputs.shape == (3, 3, HEIGHT, WIDTH) and data.num_classes == 3
    assert data.train.targets[0, 0, ::4].tolist() == [0, 1, 2, VOID]
    assert data.validation is None
    (pairs / "classes.txt").write_text("sky\nroad\ncar\n")
    scaled = load(f"masks,path={pairs},height=6,width=8")
    assert scaled.class_names == ("sky", "road", "car") and scaled.shape == (3, 6, 8)
    assert scaled.train.targets[0, 0, ::2].tolist() == [0, 1, 2, VOID]


def test_void_may_have_any_number(pairs):
    for i in range(3):
        write(pairs / "trainannot", f"{i}.png", [0, 1, 2, 11])
    data = load(f"masks,path={pairs},classes=3,void=11")
    assert data.train.targets[0, 0, ::4].tolist() == [0, 1, 2, VOID]


def test_camvid_has_a_validation_part(pairs):
    home = pairs / "CamVid"
    for split in ("train", "val", "test"):
        photo(home / split, "a.jpg")
        write(home / f"{split}annot", "a.png", [0, 10, 3, 11])
    data = load("camvid", root=pairs)
    assert set(data.parts) == {"train", "test", "validation"} and len(data.class_names) == 11
    assert data.validation.targets[0, 0, ::4].tolist() == [0, 10, 3, VOID]


def test_voc_layout(tmp_path):
    for split, names in (("train", "ab"), ("val", "c")):
        listed = tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names) + "\n")
        for name in names:
            photo(tmp_path / "JPEGImages", f"{name}.jpg")
            write(tmp_path / "SegmentationClass", f"{name}.png", [0, 15, 20, 255], "P")
    data = load(f"voc_masks,path={tmp_path}")
    assert (len(data.train), len(data.test), data.num_classes) == (2, 1, 21)
    assert [VOC[label] for label in (0, 15, 20)] == ["background", "person", "tvmonitor"]
    assert data.test.targets[0, 0, ::4].tolist() == [0, 15, 20, VOID]
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        load(f"voc_masks,path={tmp_path}")


def test_cityscapes_layout(tmp_path):
    for split in ("train", "val"):
        photo(tmp_path / "leftImg8bit" / split / "ulm", "ulm_0_leftImg8bit.png")
        write(tmp_path / "gtFine" / split / "ulm", "ulm_0_gtFine_labelIds.png", [7, 33, 0, 26])
    data = load(f"cityscapes,path={tmp_path}")
    assert data.num_classes == len(CITYSCAPES) == 19
    assert data.train.targets[0, 0, ::4].tolist() == [0, 18, VOID, 13]


def spoil_missing(home):
    (home / "trainannot" / "1.png").unlink()
    return r"1\.png"


def spoil_beyond(home):
    write(home / "trainannot", "1.png", [0, 1, 2, 3])
    return r"1\.png.*\b3\b"


def spoil_size(home):
    photo(home / "train", "1.png", (9, 9))
    return r"1\.png.*12 x 16.*9 x 9"


def spoil_image(home):
    (home / "test" / "2.png").write_bytes(b"nothing")
    return r"2\.png"


def spoil_folder(home):
    for file in (home / "testannot").iterdir():
        file.unlink()
    (home / "testannot").rmdir()
    return "testannot"


@pytest.mark.parametrize(
    "spoil", [spoil_missing, spoil_beyond, spoil_size, spoil_image, spoil_folder]
)
def test_the_file_that_is_wrong_is_named(pairs, spoil):
    named = spoil(pairs)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        load(f"masks,path={pairs},classes=3")


@pytest.mark.parametrize(
    ("options", "named"),
    [("", "classes"), (",classes=0", "classes=0"), (",classes=3,height=4", "width")],
)
def test_bad_options_are_named(pairs, options, named):
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        load(f"masks,path={pairs}{options}")
