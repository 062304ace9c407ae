import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from weightfold.data import load


def arrays(shape=(6, 6), **changes):
    generator = np.random.default_rng(0)
    given = {
        "x_train": generator.integers(0, 256, (8, *shape), dtype=np.uint8),
        "y_train": np.arange(8) % 3,
        "x_test": generator.integers(0, 256, (4, *shape), dtype=np.uint8),
        "y_test": np.arange(4, dtype=np.uint8),
    }
    return given | changes


@pytest.mark.parametrize(("shape", "channels"), [((6, 5), 1), ((6, 5, 1), 1), ((6, 5, 3), 3)])
def test_npz_files_are_read_by_name_and_by_path(tmp_path, shape, channels):
    content = arrays(shape)
    np.savez(tmp_path / "mine.npz", **content)
    for spec in (f"{tmp_path}/mine.npz", f"npz,path={tmp_path}/mine.npz"):
        dataset = load(spec)
        assert dataset.name == "mine"
        assert dataset.train.image_shape == (channels, 6, 5)
        assert dataset.num_classes == 4
        assert dataset.test.labels.tolist() == [0, 1, 2, 3]
        flat = content["x_train"].reshape(8, 6, 5, channels)
        for channel in range(channels):
            expected = torch.from_numpy(flat[..., channel].copy())
            assert torch.equal(dataset.train.images[:, channel], expected)
        # Where the file lies is no fact about the data.
        assert dataset.record["source"] == "mine.npz"
        assert str(tmp_path) not in str(dataset.record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((8, 6, 6))}, "x_train is float64 (8, 6, 6); it must be uint8"),
        ({"x_test": np.zeros((4, 36), np.uint8)}, "x_test is uint8 (4, 36)"),
        ({"x_test": np.zeros((4, 3, 6, 6), np.uint8)}, "x_test is uint8 (4, 3, 6, 6)"),
        ({"y_train": np.zeros(7, int)}, "y_train is int64 (7,); it must be whole numbers, (8,)"),
        ({"y_train": np.zeros(8)}, "y_train is float64"),
        ({"y_test": np.array([0, 1, -2, 1])}, "y_test has label -2"),
        ({"x_test": np.zeros((4, 7, 7), np.uint8)}, "images of (6, 6, 1) and x_test of (7, 7, 1)"),
    ],
)
def test_arrays_of_another_kind_are_named(tmp_path, changes, message):
    np.savez(tmp_path / "bad.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=re.escape(message)):
        load(f"{tmp_path}/bad.npz")


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays(y_test=np.array([1, "a", None, {}], dtype=object)))
    with pytest.raises(ValueError, match=r"bad\.npz .*Object arrays cannot be loaded"):
        load(f"{tmp_path}/bad.npz")


class Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_object_is_unpickled(tmp_path):
    objects = np.array([Canary(tmp_path / "exploded")] * 4, dtype=object)
    for name in ("x_train", "y_train", "x_test", "y_test", "other"):
        np.savez(tmp_path / "bad.npz", **arrays(**{name: objects}))
        if name == "other":
            load(f"{tmp_path}/bad.npz")
        else:
            with pytest.raises(ValueError, match=r"bad\.npz"):
                load(f"{tmp_path}/bad.npz")
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Canary(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("label", [0, 3])
def test_one_class_is_refused(tmp_path, label):
    np.savez(tmp_path / "bad.npz", **arrays(y_train=np.full(8, label)))
    with pytest.raises(ValueError, match=r"bad\.npz.* 8 training images are of one class"):
        load(f"{tmp_path}/bad.npz")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_arrays_in_fortran_order_and_of_any_whole_dtype(tmp_path, shape):
    content = arrays(shape)
    changed = {name: np.asfortranarray(content[name]) for name in ("x_train", "x_test")}
    changed |= {name: content[name].astype(">u2") for name in ("y_train", "y_test")}
    np.savez(tmp_path / "plain.npz", **content)
    np.savez_compressed(tmp_path / "changed.npz", **changed)
    plain, found = (load(f"{tmp_path}/{name}.npz") for name in ("plain", "changed"))
    for part in ("train", "test"):
        expected, given = getattr(plain, part), getattr(found, part)
        assert torch.equal(expected.images, given.images)
        assert torch.equal(expected.labels, given.labels)


def test_missing_arrays_are_named(tmp_path):
    content = arrays()
    del content["x_test"], content["y_test"]
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(ValueError, match="it lacks x_test, y_test; it holds x_train, y_train"):
        load(f"{tmp_path}/bad.npz")


def test_truncated_and_missing_files_are_named(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"bad\.npz does not load"):
        load(str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"bad\.npz' does not exist"):
        load(str(path))


def test_a_lone_array_is_no_npz_file(tmp_path):
    with (tmp_path / "bad.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"bad\.npz does not load"):
        load(f"{tmp_path}/bad.npz")
