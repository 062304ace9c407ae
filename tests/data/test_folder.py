import os

import numpy as np
import pytest
import torch
from PIL import Image

from weightfold.data import Augment, Batches, Examples, ImageFiles, load, split


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
    assert torch.equal(dataset.train.inputs, images)
    assert dataset.train.targets.tolist() == [0] * 5 + [1] * 5
    assert dataset.test.targets.tolist() == [0, 0, 1, 1]
    assert dataset.class_names == ("ant", "bee")
    assert dataset.mean[0] == pytest.approx(images[:, 0].double().mean().item() / 255)
    assert dataset.name == tmp_path.name
    assert not isinstance(dataset.train, ImageFiles)


def test_the_middle_square_is_taken(tmp_path):
    images = write(tmp_path, size=(8, 14))
    dataset = load(f"folder,path={tmp_path},size=8")
    assert torch.equal(dataset.train.inputs, images[..., 3:11])


def test_the_shorter_side_is_scaled(tmp_path):
    images = write(tmp_path, size=(16, 20))
    found = load(f"{tmp_path},size=8").train.inputs
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
    assert large.train.shape == (3, 8, 8)
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
        assert torch.equal(part.inputs, files.inputs)
        assert isinstance(part, Examples)


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
