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
