import gzip
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from weightfold.data import load


def idx(array):
    """The bytes of an idx file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder, prefixes=("train", "t10k"), zipped=False, classes=10):
    """Images and labels of both parts, also returned."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    parts = []
    for prefix, count in zip(prefixes, (12, 7), strict=True):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % classes).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
        parts.append((torch.from_numpy(images), torch.from_numpy(labels).long()))
    return parts


def check(dataset, parts):
    for image_set, (images, labels) in zip((dataset.train, dataset.test), parts, strict=True):
        assert torch.equal(image_set.images, images.unsqueeze(1))
        assert torch.equal(image_set.labels, labels)
    values = parts[0][0].double() / 255
    assert dataset.mean == pytest.approx([values.mean().item()])
    assert dataset.std == pytest.approx([values.std(correction=0).item()])


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_idx_files_are_read_packed_or_not(tmp_path, name, folder, zipped):
    parts = write(tmp_path / folder / "raw", zipped=zipped)
    dataset = load(name, tmp_path)
    check(dataset, parts)
    assert dataset.num_classes == len(dataset.class_names) == 10


def test_the_parts_of_emnist(tmp_path):
    parts = write(tmp_path / "EMNIST/raw", ("emnist-letters-train", "emnist-letters-test"))
    dataset = load("emnist,part=letters", tmp_path)
    check(dataset, parts)
    assert dataset.num_classes == 27
    assert dataset.record["part"] == "letters"
    with pytest.raises(FileNotFoundError, match="emnist-balanced-train-images"):
        load("emnist", tmp_path)
    with pytest.raises(ValueError, match="part='greek' of emnist; use one of byclass"):
        load("emnist,part=greek", tmp_path)


def test_grayscale_repeats_to_three_channels(tmp_path):
    (images, _), _ = write(tmp_path / "MNIST/raw")
    gray, color = load("mnist", tmp_path), load("mnist,rgb=true", tmp_path)
    assert color.train.image_shape == color.test.image_shape == (3, 28, 28)
    for channel in range(3):
        assert torch.equal(color.train.images[:, channel], images)
    assert (color.mean, color.std) == (gray.mean * 3, gray.std * 3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-100], "has 9,324 bytes .* instead of 9,424 .*12, 28, 28"),
        (lambda content: content + b"x", "has 9,425 bytes .* instead of 9,424"),
        (lambda content: content[:7], "is no idx file"),
        (lambda content: b"<html>" + content, "is no idx file"),
    ],
)
def test_spoiled_files_are_named(tmp_path, spoil, message):
    write(tmp_path / "MNIST/raw")
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte {message}"):
        load("mnist", tmp_path)


def test_a_truncated_gzip_file_is_named(tmp_path):
    write(tmp_path / "MNIST/raw", zipped=True)
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz cannot be unpacked"):
        load("mnist", tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path / "MNIST/raw")
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte is missing"):
        load("mnist", tmp_path)


def test_images_and_labels_must_be_as_many(tmp_path):
    write(tmp_path / "MNIST/raw")
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(11, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"has 12 images .* 11 labels"):
        load("mnist", tmp_path)


def test_download_calls_torchvision_only_for_missing_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: write(tmp_path / "MNIST/raw"))
    dataset = load("mnist,download=true", tmp_path / ".")
    assert len(dataset.train) == 12
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: pytest.fail("called again"))
    load("mnist,download=true", tmp_path)


def test_a_download_that_fails_says_so(tmp_path, monkeypatch):
    def download(self):
        raise URLError("no route")

    monkeypatch.setattr(datasets.KMNIST, "download", download)
    with pytest.raises(OSError, match=r"'kmnist' in .* no route"):
        load("kmnist,download=true", tmp_path)


def test_training_and_test_images_of_two_sizes_name_their_files(tmp_path):
    write(tmp_path / "MNIST/raw")
    path = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((7, 20, 28), dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"train-images.* 28\) and .*t10k-images.*20, 28"):
        load("mnist", tmp_path)
