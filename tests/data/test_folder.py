import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from weightfold.data import Augment, Batches, ImageFiles, ImageSet, load, split


def write(root, test="test", size=(8, 8), classes=("ant", "bee"), counts=(5, 2)):
    """Random images; returns those of train/ in order, (N, 3, H, W)."""
    generator = np.random.default_rng(0)
    written = []
    for part, count in zip(("train", test), counts, strict=True):
        for name in classes:
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
                if part == "train":
                    written.append(torch.from_numpy(pixels).permute(2, 0, 1))
    return torch.stack(written)


@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_of_images_are_read_class_by_class(tmp_path, test):
    images = write(tmp_path, test)
    dataset = load(f"{tmp_path},size=8")
    assert torch.equal(dataset.train.images, images)
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.class_names == ("ant", "bee")
    assert dataset.mean[0] == pytest.approx(images[:, 0].double().mean().item() / 255)
    assert dataset.name == tmp_path.name
    assert not isinstance(dataset.train, ImageFiles)


def test_the_middle_square_is_taken(tmp_path):
    images = write(tmp_path, size=(8, 14))
    dataset = load(f"folder,path={tmp_path},size=8")
    assert torch.equal(dataset.train.images, images[..., 3:11])


def test_the_shorter_side_is_scaled(tmp_path):
    images = write(tmp_path, size=(16, 20))
    found = load(f"{tmp_path},size=8").train.images
    for image, scaled in zip(images, found, strict=True):
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((10, 8), Image.BILINEAR)
        expected = torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1)[..., 1:9]
        # Pillow rounds between its two passes.
        assert (scaled.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_what_exceeds_the_memory_is_read_from_its_files_with_the_same_batches(tmp_path, workers):
    if workers > (os.cpu_count() or 1):
        pytest.skip("more workers than processors")
    write(tmp_path)
    resident = load(f"{tmp_path},size=8")
    large = load(f"{tmp_path},size=8,memory=0.000001,workers={workers}")
    assert isinstance(large.train, ImageFiles)
    assert large.train.image_shape == (3, 8, 8)
    assert (large.mean, large.std) == (resident.mean, resident.std)
    before = torch.get_rng_state()
    given = {"batch_size": 4, "mean": resident.mean, "std": resident.std, "seed": 0}
    streams = [Batches(s.train, augment=Augment(), **given).epoch(1) for s in (resident, large)]
    for (x, y), (large_x, large_y) in zip(*streams, strict=True):
        assert torch.equal(x, large_x)
        assert torch.equal(y, large_y)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_split_relabel_and_limit_like_images_in_memory(tmp_path):
    write(tmp_path, counts=(20, 2))
    options = "size=8,corrupt=0.5,limit=30,seed=3"
    resident, large = (load(f"{tmp_path},{options}{more}") for more in ("", ",memory=0,workers=0"))
    assert isinstance(large.train, ImageFiles)
    assert resident.record["labels_changed"] == large.record["labels_changed"] > 0
    pairs = zip(split(resident.train, 7, seed=0), split(large.train, 7, seed=0), strict=True)
    for part, files in pairs:
        assert isinstance(files, ImageFiles)
        assert torch.equal(part.labels, files.labels)
        assert torch.equal(part.images, files.images)
        assert isinstance(part, ImageSet)


def test_an_image_that_is_none_is_named(tmp_path):
    write(tmp_path)
    path = tmp_path / "train/bee/3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"bee/3\.png cannot be decoded"):
        load(f"{tmp_path},size=8")


def test_a_class_in_one_part_only_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "test/bee").rename(tmp_path / "test/cat")
    with pytest.raises(ValueError, match="classes bee, cat are not in both train/ and test/"):
        load(f"{tmp_path},size=8")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train does not exist"):
        load(f"{tmp_path},size=8")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="test does not exist"):
        load(f"{tmp_path},size=8")
    with pytest.raises(ValueError, match="'folder' needs size"):
        load(str(tmp_path))


@pytest.mark.parametrize("options", ["size=0", "size=8,workers=-1"])
def test_options_out_of_range_are_refused(tmp_path, options):
    write(tmp_path)
    with pytest.raises(ValueError, match="must be at least 1, and workers"):
        load(f"{tmp_path},{options}")


def test_what_is_no_image_is_skipped_counted_and_named(tmp_path):
    write(tmp_path)
    clean = load(f"{tmp_path},size=8")
    assert "skipped" not in clean.record
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    (tmp_path / "train/bee/.thumbnails").mkdir()
    (tmp_path / "train/bee/.thumbnails/0.png").write_bytes(b"")
    for name in ("train/notes.txt", "train/bee/Thumbs.db", "test/ant/._0.png", "test/ant/x.svg"):
        (tmp_path / name).write_bytes(b"none")
    skipped = {"train/.ipynb_checkpoints", "train/notes.txt", "train/bee/.thumbnails"}
    skipped |= {"train/bee/Thumbs.db", "test/ant/._0.png", "test/ant/x.svg"}
    with pytest.warns(UserWarning, match=r"6 files or folders were skipped.*Thumbs\.db"):
        dataset = load(f"{tmp_path},size=8")
    assert dataset.record["skipped"] == 6
    assert set(dataset.record["skipped_files"]) == skipped
    assert torch.equal(dataset.train.images, clean.train.images)
    assert dataset.class_names == ("ant", "bee")


def test_a_long_list_of_skipped_files_is_cut(tmp_path):
    write(tmp_path)
    for i in range(30):
        (tmp_path / "train/ant" / f"{i}.txt").touch()
    with pytest.warns(UserWarning, match="30 files .* and 20 more"):
        record = load(f"{tmp_path},size=8").record
    assert (record["skipped"], len(record["skipped_files"])) == (30, 10)


@pytest.mark.parametrize("ending", [".gif", ".jfif", ".JPG", ".tif", ".pgm", ".webp", ".apng"])
def test_every_format_that_is_decoded_is_listed(tmp_path, ending):
    write(tmp_path)
    kinds = {".jfif": "JPEG", ".jpg": "JPEG", ".tif": "TIFF", ".pgm": "PPM", ".apng": "PNG"}
    kind = kinds.get(ending.lower(), ending[1:].upper())
    Image.new("L", (8, 8), 200).save(tmp_path / "train/bee" / f"9{ending}", kind)
    dataset = load(f"{tmp_path},size=8")
    assert len(dataset.train) == 11
    assert (dataset.train.images[-1].int() - 200).abs().max() <= 2


def test_files_come_in_the_order_of_torchvision(tmp_path):
    write(tmp_path)
    for name in ("a-b/1.png", "a/x/2.png", "a/0.png", "B/3.png"):
        path = tmp_path / "train/ant" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "train/ant/0.png", path)
    found = load(f"{tmp_path},size=8,memory=0,workers=0").train
    expected = ImageFolder(str(tmp_path / "train")).samples
    assert [str(path) for path in found.paths] == [path for path, _ in expected]
    assert found.labels.tolist() == [label for _, label in expected]


def test_links_that_lead_in_a_circle_end(tmp_path):
    write(tmp_path)
    (tmp_path / "train/ant/again").symlink_to(tmp_path / "train/ant")
    (tmp_path / "train/ant/up").symlink_to(tmp_path / "train")
    with pytest.warns(UserWarning, match=r"train/ant/again"):
        dataset = load(f"{tmp_path},size=8")
    # Through "up" lie the images of the other class too, as they would without a circle.
    assert len(dataset.train) == 15


def test_one_class_is_refused(tmp_path):
    write(tmp_path, classes=("ant",))
    with pytest.raises(ValueError, match="ant is the only class"):
        load(f"{tmp_path},size=8")


def test_a_class_without_images_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "train/cat").mkdir()
    with pytest.raises(FileNotFoundError, match="train/cat holds no image"):
        load(f"{tmp_path},size=8")


def test_pixels_of_16_bits_are_scaled_not_clipped(tmp_path):
    write(tmp_path)
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "train/ant/0.png")
    image = load(f"{tmp_path},size=8").train.images[0]
    assert image.tolist() == [(ramp >> 8).tolist()] * 3


def test_a_photograph_lies_as_it_is_seen(tmp_path):
    write(tmp_path)
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255  # the upper half is white, and on the right after a turn by orientation 6
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "train/ant/0.png", exif=exif)
    image = load(f"{tmp_path},size=8").train.images[0]
    assert image[:, :, 4:].min() == 255 and image[:, :, :4].max() == 0
