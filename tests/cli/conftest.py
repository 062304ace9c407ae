from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def stripes(tmp_path_factory) -> Path:
    """An .npz file of 8 x 8 images whose class, of 4, is which columns are bright."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 96), ("test", 40)):
        labels = random.integers(0, 4, count)
        images = random.integers(0, 120, (count, 8, 8))
        images += 100 * (np.arange(8) // 2 == labels[:, None])[:, None, :]
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, **arrays)
    return path


def stripes_file(path: Path, classes: int, seed: int, images: int = 48) -> Path:
    """An .npz file of 8 x 8 images; class c has two bright columns, 2c and 2c + 1."""
    random = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", images), ("test", 24 if images else 0)):
        labels = np.arange(count) % classes
        pixels = random.integers(0, 120, (count, 8, 8))
        pixels += 100 * (np.arange(8) // 2 == labels[:, None])[:, None, :]
        arrays |= {f"x_{part}": pixels.astype(np.uint8), f"y_{part}": labels}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def domain_files(tmp_path_factory) -> dict[str, Path]:
    """Files of three small domains, and of an empty one."""
    folder = tmp_path_factory.mktemp("domains")
    made = {
        name: stripes_file(folder / f"{name}.npz", classes, seed)
        for seed, (name, classes) in enumerate({"birds": 4, "cars": 3, "boats": 2}.items())
    }
    return made | {"empty": stripes_file(folder / "empty.npz", 2, 9, images=0)}


@pytest.fixture
def domains(domain_files) -> list[str]:
    """Two domains as the command line takes them, of 4 and 3 classes."""
    return [f"{name}={domain_files[name]}" for name in ("birds", "cars")]
