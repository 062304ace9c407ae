"""Files that ask for terabytes are refused by name, in a process that could not get 1 GB."""

import json
import os
import resource
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from mutation import bombs
from weightfold.data import ImageSet, as_samples, load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits a process")

# Loads every spec with 1 GB more of address space than the process has when all is imported.
LOADER = """
import json, resource, sys
from pathlib import Path
import weightfold.data.readers.folder
from weightfold.data import load
from weightfold.data.registry import readers
readers()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 10**9
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
answers = []
for spec, root in json.load(sys.stdin):
    try:
        load(spec, root)
        answers.append(["loaded", ""])
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([answers, peak]))
"""


def answers(specs, **environment):
    """What became of each (spec, root): [kind of error, message]."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOADER)],
        input=json.dumps(specs), env=os.environ | {"MALLOC_ARENA_MAX": "2"} | environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)[0]


def write_folder(root):
    """Two classes of two images each in train/ and test/."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")


def write_idx(root):
    """A small MNIST, plain."""
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 12), ("t10k", 7)):
        pixels = np.arange(count * 784, dtype=np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(bombs.idx(count, 28, 28) + bytes(pixels))
        labels = bytes(i % 10 for i in range(count))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(bombs.idx(count) + labels)
    return raw


NPZ = {
    "gigabytes": bombs.npz_that_unpacks_to_gigabytes,
    "header": bombs.npz_with_a_header_that_lies,
    "directory": bombs.npz_with_a_directory_that_lies,
    "directory_below_the_budget": lambda: bombs.npz_with_a_directory_that_lies(10**6),
    "long_header": bombs.npz_with_a_long_header,
    "label": lambda: bombs.npz_with_label(2**31),
    "label_of_a_million": lambda: bombs.npz_with_label(10**6),
    "unsigned_label": lambda: bombs.npz_with_label(2**64 - 1, "<u8"),
    "negative_label": lambda: bombs.npz_with_label(-1),
    "float_label": lambda: bombs.npz_with_label(1.5, "<f8"),
}


def test_npz_bombs(tmp_path):
    (tmp_path / "good.npz").write_bytes(bombs.npz_with_label(1))
    for name, make in NPZ.items():
        (tmp_path / f"{name}.npz").write_bytes(make())
    # Nothing but a hole, and a name that leads to a pipe.
    with (tmp_path / "hole.npz").open("wb") as file:
        file.truncate(2**40)
    os.mkfifo(tmp_path / "pipe.npz")
    names = [*NPZ, "hole", "pipe"]
    *found, good = answers([(str(tmp_path / f"{name}.npz"), None) for name in [*names, "good"]])
    assert good == ["loaded", ""]
    for name, (kind, message) in zip(names, found, strict=True):
        assert kind == "ValueError", (name, kind, message)
        assert f"{name}.npz" in message and "CRC" not in message
        assert "allocate" not in message


IDX = {
    "train-images-idx3-ubyte": bombs.idx(2**32 - 1, 2**32 - 1, 2**32 - 1),
    "t10k-images-idx3-ubyte": bombs.idx(0, 28, 28),
    "train-labels-idx1-ubyte": bombs.idx(12) + bytes([255] * 12),
    "t10k-labels-idx1-ubyte": bombs.idx(2**32 - 1) + bytes(7),
}
GZ = {
    "declared only": bombs.gz(bombs.idx(10**7, 28, 28), 1),
    "and there": bombs.gz(bombs.idx(10**6, 28, 28 * 3), bombs.GIGABYTES),
    "behind": bombs.gz(bombs.idx(12, 28, 28), bombs.GIGABYTES),
}


def test_idx_bombs(tmp_path):
    specs, names = [], []
    for name, content in IDX.items():
        write_idx(root := tmp_path / str(len(specs)))
        (root / "MNIST/raw" / name).write_bytes(content)
        specs.append(("mnist", str(root)))
        names.append(name)
    for content in GZ.values():
        raw = write_idx(root := tmp_path / str(len(specs)))
        (raw / "train-images-idx3-ubyte").unlink()
        (raw / "train-images-idx3-ubyte.gz").write_bytes(content)
        specs.append(("mnist", str(root)))
        names.append("train-images-idx3-ubyte.gz")
    raw = write_idx(root := tmp_path / str(len(specs)))
    (raw / "train-images-idx3-ubyte").write_bytes(bombs.idx(2**21, 2**10, 2**10))
    with (raw / "train-images-idx3-ubyte").open("r+b") as file:
        file.truncate(16 + 2**41)
    specs.append(("mnist", str(root)))
    names.append("train-images-idx3-ubyte")
    write_idx(tmp_path / "good")
    *found, good = answers([*specs, ("mnist", str(tmp_path / "good"))])
    assert good == ["loaded", ""]
    for name, (kind, message) in zip(names, found, strict=True):
        assert kind == "ValueError", (name, kind, message)
        assert name in message


@pytest.mark.filterwarnings("ignore:Image size")
def test_image_bombs(tmp_path):
    specs, names = [], []
    for name, content in bombs.images().items():
        write_folder(root := tmp_path / str(len(specs)))
        (root / "train/bee" / name).write_bytes(content)
        specs.append((f"{root},size=64", None))
        names.append(name)
    write_folder(root := tmp_path / "pipe")
    os.mkfifo(root / "test/ant/pipe.jpg")
    specs.append((f"{root},size=64", None))
    names.append("pipe.jpg")
    write_folder(tmp_path / "good")
    specs += [(f"{tmp_path}/good,size=100000", None), (f"{tmp_path}/good,size=64", None)]
    *found, large, good = answers(specs)
    assert good == ["loaded", ""]
    assert large[0] == "ValueError" and "size=100000" in large[1]
    for name, (kind, message) in zip(names, found, strict=True):
        assert kind == "ValueError", (name, kind, message)
        assert name in message


def test_cifar_files_are_as_long_as_they_must_be(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    with (folder / "data_batch_1.bin").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"data_batch_1\.bin has 1,099,511,627,776 bytes"):
        load("cifar10", tmp_path)


def test_the_budget_is_named_and_can_be_raised(tmp_path, monkeypatch):
    path, images, labels = tmp_path / "mine.npz", np.zeros((50, 64, 64), np.uint8), np.arange(50)
    images[0, 0, 0] = 1
    np.savez_compressed(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    monkeypatch.setenv("WEIGHTFOLD_DATA_GB", "0.0001")
    with pytest.raises(ValueError, match=r"mine\.npz .*410,400 bytes .*set WEIGHTFOLD_DATA_GB=1"):
        load(str(path))
    monkeypatch.setenv("WEIGHTFOLD_DATA_GB", "1")
    assert len(load(str(path)).train) == 50
    with pytest.raises(ValueError, match=r"size=9999.*WEIGHTFOLD_DATA_GB"):
        load(f"{path},size=9999")
    for given in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("WEIGHTFOLD_DATA_GB", given)
        with pytest.raises(ValueError, match=f"WEIGHTFOLD_DATA_GB='{given}'"):
            load(str(path))


def test_what_is_set_allows_any_ratio(tmp_path, monkeypatch):
    path = tmp_path / "gigabytes.npz"
    path.write_bytes(bombs.npz_with_a_directory_that_lies(10**6))
    monkeypatch.setenv("WEIGHTFOLD_DATA_GB", "4")
    # More than deflate can do stays a lie.
    with pytest.raises(ValueError, match=r"more than its .* packed bytes can hold"):
        load(str(path))


@pytest.mark.parametrize("label", [10**6, 2**31, 2**62])
def test_labels_beyond_any_class_are_refused_before_they_are_counted(label):
    labels = torch.tensor([0, 1, label])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"labels has {label}"):
        ImageSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), labels)
    with pytest.raises(ValueError, match=f"labels has {label}"):
        as_samples(((torch.zeros(3, 2), labels), (torch.zeros(3, 2), labels)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
