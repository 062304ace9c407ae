import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from weightfold.data import load

CIFAR10 = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def write_records(path, images, label_bytes, label, first):
    """A file of that many records, all black and of label 0 but the first one and the last."""
    path.parent.mkdir(exist_ok=True)
    size = label_bytes + 3072
    # Bytes that are never written read as zeros, and take no time.
    with path.open("wb") as file:
        file.write(bytes(label) + first.tobytes())
        file.seek((images - 1) * size)
        file.write(bytes(label) + first[::-1].tobytes())


def write_cifar10(root):
    """The image first in file i is i everywhere; its label is i."""
    for i, name in enumerate(CIFAR10):
        first = np.full(3072, i, dtype=np.uint8)
        write_records(root / "cifar-10-batches-bin" / name, 10_000, 1, [i], first)


def test_cifar10_is_read_from_the_binary_files(tmp_path):
    write_cifar10(tmp_path)
    dataset = load("cifar10", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.train.shape == (3, 32, 32)
    for i in range(5):
        for place in (10_000 * i, 10_000 * i + 9_999):
            assert dataset.train.targets[place] == i
            assert (dataset.train.inputs[place] == i).all()
    assert dataset.test.targets[0] == 5
    assert dataset.train.targets.sum() == 2 * (1 + 2 + 3 + 4)
    assert dataset.class_names[3] == "cat"
    assert dataset.mean == (125.3 / 255, 123.0 / 255, 113.9 / 255)
    assert dataset.std == (63.0 / 255, 62.1 / 255, 66.7 / 255)
    assert dataset.record == {
        "source": "cifar-10-batches-bin",
        "train": 50_000,
        "test": 10_000,
        "image_shape": [3, 32, 32],
    }


def test_planes_are_red_green_blue_and_rows_run_across(tmp_path):
    write_cifar10(tmp_path)
    planes = np.stack([np.arange(1024) % 251, np.full(1024, 7), np.full(1024, 9)])
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    write_records(path, 10_000, 1, [0], planes.astype(np.uint8).ravel())
    image = load("cifar10", tmp_path).test.inputs[0]
    for row, column in ((0, 5), (3, 0), (31, 30)):
        assert image[:, row, column].tolist() == [(32 * row + column) % 251, 7, 9]


def test_cifar100_takes_the_fine_label_and_its_names(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    image = np.full(3072, 200, dtype=np.uint8)
    write_records(folder / "train.bin", 50_000, 2, [19, 99], image)
    write_records(folder / "test.bin", 10_000, 2, [3, 42], image)
    dataset = load("cifar100", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.train.targets[[0, 1, -1]].tolist() == [99, 0, 99]
    assert (dataset.test.targets[0], dataset.test.inputs[0].float().mean()) == (42, 200)
    assert dataset.num_classes == 100
    assert dataset.mean == (0.5071, 0.4867, 0.4408)
    assert dataset.std == (0.2675, 0.2565, 0.2761)
    assert dataset.class_names[99] == "99"
    (folder / "fine_label_names.txt").write_text("\n".join(f"thing_{i}" for i in range(100)))
    assert load("cifar100", tmp_path).class_names[99] == "thing_99"


def test_a_missing_file_is_named(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin is missing"):
        load("cifar10", tmp_path)


def test_a_truncated_file_is_named_with_both_sizes(tmp_path):
    write_cifar10(tmp_path)
    with (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(
        ValueError, match=r"data_batch_4\.bin has 1,000,000 bytes instead of 30,730,000"
    ):
        load("cifar10", tmp_path)


def test_a_label_that_is_none_is_named_with_its_file(tmp_path):
    write_cifar10(tmp_path)
    black = np.zeros(3072, dtype=np.uint8)
    write_records(tmp_path / "cifar-10-batches-bin" / CIFAR10[1], 10_000, 1, [10], black)
    with pytest.raises(ValueError, match=r"data_batch_2\.bin: image 0 has label 10 of 0\.\.9"):
        load("cifar10", tmp_path)


def test_without_any_layout_both_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin nor .*cifar-10-batches-py"):
        load("cifar10", tmp_path)


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_pickles(root, bomb=None):
    """The python layout in small; the checksums of torchvision's lists in the same order."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)
    contents = {
        name: {
            "data": generator.integers(0, 256, (4, 3072), dtype=np.uint8),
            "labels": [(i + k) % 10 for k in range(4)],
        }
        for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
    }
    contents["batches.meta"] = {"label_names": [f"name {i}" for i in range(10)]}
    if bomb:
        contents[bomb] = Bomb(root / "exploded")
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return contents


def trust(monkeypatch, folder):
    """Make what lies there the official files."""

    def signed(name):
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    lists = {"train_list": [f"data_batch_{i}" for i in range(1, 6)], "test_list": ["test_batch"]}
    for key, names in lists.items():
        monkeypatch.setattr(datasets.CIFAR10, key, [signed(name) for name in names])
    meta = dict(zip(("filename", "md5"), signed("batches.meta"), strict=True))
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**meta, "key": "label_names"})


def test_pickles_with_the_official_checksums_are_read(tmp_path, monkeypatch):
    contents = write_pickles(tmp_path)
    trust(monkeypatch, tmp_path / "cifar-10-batches-py")
    dataset = load("cifar10", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (20, 4)
    first = torch.from_numpy(contents["data_batch_1"]["data"][0]).view(3, 32, 32)
    assert torch.equal(dataset.train.inputs[0], first)
    assert dataset.train.targets[:5].tolist() == [0, 1, 2, 3, 1]
    assert dataset.class_names[0] == "name 0"
    assert dataset.record["source"] == "cifar-10-batches-py"


@pytest.mark.parametrize("bomb", ["data_batch_1", "test_batch", "batches.meta"])
def test_no_pickle_is_opened_that_is_not_the_official_one(tmp_path, monkeypatch, bomb):
    write_pickles(tmp_path)
    trust(monkeypatch, tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / bomb).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ValueError, match=f"{bomb} is not the official file"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


def test_a_missing_pickle_is_named(tmp_path, monkeypatch):
    write_pickles(tmp_path)
    trust(monkeypatch, tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_5").unlink()
    with pytest.raises(ValueError, match="data_batch_5 is missing"):
        load("cifar10", tmp_path)


def test_download_calls_torchvision(tmp_path, monkeypatch):
    def download(self):
        if not (tmp_path / "cifar-10-batches-py").exists():
            write_pickles(tmp_path)
            trust(monkeypatch, tmp_path / "cifar-10-batches-py")

    monkeypatch.setattr(datasets.CIFAR10, "download", download)
    dataset = load("cifar10,download=true", tmp_path)
    assert len(dataset.train) == 20
    assert "download" not in dataset.record
