import hashlib
import re
import sys

import numpy as np
import pytest
import torch
from torchvision import datasets

from weightfold.data import available, corrupt_labels, load, reader


def test_every_reader_has_a_line():
    lines = available()
    wanted = {"cifar10", "cifar100", "digits", "emnist", "fashion_mnist", "folder", "kmnist"}
    assert wanted | {"mnist", "npz", "svhn"} <= set(lines)
    assert all(line.endswith(".") for line in lines.values())


def test_digits_are_split_in_the_same_way_forever():
    dataset = load("digits")
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (1197, 600, 10)
    assert dataset.train.shape == (1, 8, 8)
    # Published results stand on this split.
    digest = hashlib.sha256(dataset.test.inputs.numpy().tobytes()).hexdigest()
    assert digest[:16] == "b4cf2fe3f4fcba2a"


def test_digits_are_scaled_and_every_digit_is_in_proportion():
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    dataset = load("digits")
    pixels = torch.cat([dataset.train.inputs, dataset.test.inputs])
    assert pixels.min() == 0
    assert pixels.max() == 255
    expected = sorted(map(tuple, (values * 255 / 16).round().astype(int)))
    assert sorted(map(tuple, pixels.flatten(1).tolist())) == expected
    share = 600 * np.bincount(labels) / 1797
    assert np.abs(dataset.test.targets.bincount().numpy() - share).max() < 1


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'weightfold[train]'")):
        load("digits")


def test_corrupt_changes_the_training_labels_only():
    clean, noisy = load("digits"), load("digits,corrupt=0.8,seed=5")
    expected, changed = corrupt_labels(clean.train.targets, 0.8, 10, 5)
    assert torch.equal(noisy.train.targets, expected)
    assert torch.equal(noisy.test.targets, clean.test.targets)
    assert torch.equal(noisy.train.inputs, clean.train.inputs)
    facts = {"corrupt": 0.8, "seed": 5, "labels_changed": int(changed.sum())}
    assert facts.items() <= noisy.record.items()
    assert noisy.mean == clean.mean


def test_a_smaller_limit_is_part_of_a_larger_one():
    everything, few, more = (load(f"digits{o}") for o in ("", ",limit=20", ",limit=50"))
    assert (len(few.train), len(few.test)) == (20, 600)
    assert torch.equal(more.train.inputs[:20], few.train.inputs)
    assert torch.equal(more.train.targets[:20], few.train.targets)
    assert not torch.equal(few.train.inputs, everything.train.inputs[:20])
    assert not torch.equal(load("digits,limit=20,seed=1").train.inputs, few.train.inputs)
    assert few.record["seed"] == 0
    assert few.record["train"] == 20


def test_an_image_has_the_same_corrupted_label_under_every_limit():
    clean, few, more = (
        load(f"digits,{o}") for o in ("limit=50", "limit=20,corrupt=0.5", "limit=50,corrupt=0.5")
    )
    assert torch.equal(more.train.targets[:20], few.train.targets)
    changed = int((more.train.targets != clean.train.targets).sum())
    assert more.record["labels_changed"] == changed > 0


def test_a_limit_and_corrupted_labels_keep_the_groups():
    whole, part = load("digits,group=7"), load("digits,group=7,limit=300,corrupt=0.5,seed=2")
    order = torch.randperm(1197, generator=torch.Generator().manual_seed(2))[:300]
    assert torch.equal(part.groups, whole.groups[order])
    assert whole.groups.max() >= 1197 // 7
    assert load("digits").groups is None
    with pytest.raises(ValueError, match="group=0"):
        load("digits,group=0")


def test_size_scales_every_image():
    small, large = load("digits"), load("digits,size=16")
    assert large.train.shape == large.test.shape == (1, 16, 16)
    assert large.record["image_shape"] == [1, 16, 16]
    # Bilinear: a constant border stays, and the mean about does.
    means = [d.train.inputs.double().mean() for d in (small, large)]
    assert abs(means[0] - means[1]) < 1
    assert torch.equal(large.train.targets, small.train.targets)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifra10", "did you mean 'cifar10'?"),
        ("", "does not start with a name"),
        ("digits,colour=true", "'digits' has no option 'colour'; its options: rgb, size"),
        ("digits,rgb=maybe", "rgb='maybe' is not true or false"),
        ("digits,corrupt=1.5", "fraction=1.5"),
        ("digits,limit=5000", "limit=5000; give 1 to 1197"),
        ("digits,limit=0", "limit=0"),
        ("digits,size=0", "size=0"),
        ("npz", "'npz' needs path"),
        ("a.npz,path=b.npz", "gives two paths"),
    ],
)
def test_wrong_specs_are_explained(spec, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(spec)


def test_without_a_data_folder_the_error_says_what_belongs_in_it(monkeypatch):
    monkeypatch.delenv("WEIGHTFOLD_DATA", raising=False)
    with pytest.raises(ValueError, match=r"WEIGHTFOLD_DATA.*cifar-10-batches-bin"):
        load("cifar10")


def test_the_data_folder_is_the_argument_then_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("WEIGHTFOLD_DATA", str(tmp_path / "from_variable"))
    with pytest.raises(FileNotFoundError, match=r"WEIGHTFOLD_DATA='.*from_variable' is no folder"):
        load("mnist")
    with pytest.raises(FileNotFoundError, match=r"root='.*from_argument' is no folder.*MNIST/raw"):
        load("mnist", tmp_path / "from_argument")
    (tmp_path / "from_variable").mkdir()
    with pytest.raises(FileNotFoundError, match="from_variable/MNIST/raw/train-images"):
        load("mnist")


def test_two_readers_of_one_name_are_refused():
    available()
    with pytest.raises(ValueError, match="'digits' exists already"):
        reader("digits")(lambda: None)


def write_svhn(root, monkeypatch):
    savemat = pytest.importorskip("scipy.io").savemat
    generator, lists = np.random.default_rng(0), {}
    pixels = {}
    for part, count in (("train", 6), ("test", 4)):
        pixels[part] = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.array([10, *range(1, count)], dtype=np.uint8).reshape(-1, 1)
        path = root / f"{part}_32x32.mat"
        savemat(path, {"X": pixels[part], "y": labels})
        lists[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    return pixels


def test_svhn_is_read_once_its_checksum_is_right(tmp_path, monkeypatch):
    pixels = write_svhn(tmp_path, monkeypatch)
    dataset = load("svhn", tmp_path)
    assert (len(dataset.train), dataset.train.shape) == (6, (3, 32, 32))
    assert dataset.train.targets.tolist() == [0, 1, 2, 3, 4, 5]
    expected = torch.from_numpy(pixels["test"].transpose(3, 2, 0, 1).copy())
    assert torch.equal(dataset.test.inputs, expected)
    (tmp_path / "test_32x32.mat").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"test_32x32\.mat is not the official file"):
        load("svhn", tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_32x32\.mat is missing"):
        load("svhn", tmp_path)


@pytest.mark.parametrize("name", ["digit_masks", "digit_boxes"])
def test_size_is_refused_where_targets_would_not_move_along(name):
    with pytest.raises(ValueError, match=r"size=24.*height and width"):
        load(f"{name},size=24")


def test_scenes_of_digits_say_where_their_digits_are():
    masks, boxes = load("digit_masks"), load("digit_boxes")
    assert torch.equal(masks.train.inputs, boxes.train.inputs) and masks.num_classes == 11
    for mask, target in zip(masks.test.targets, boxes.test.targets, strict=True):
        assert len(target["boxes"]) == len(target["labels"]) in range(1, 5)
        rest = mask.clone()
        for (left, top, right, bottom), label in zip(
            target["boxes"].int().tolist(), target["labels"].tolist(), strict=True
        ):
            inside = mask[top:bottom, left:right]
            assert set(inside.unique().tolist()) == {0, label + 1}
            rest[top:bottom, left:right] = 0
        assert not rest.any()
