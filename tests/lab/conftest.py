from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from weightfold.lab.cell import Cell
from weightfold.train import Recipe

QUICK = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)


@pytest.fixture
def stripes(tmp_path: Path) -> str:
    """Spec of a data set of 8 x 8 images whose class is where they are bright."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 96), ("test", 40)):
        labels = random.integers(0, 4, count)
        images = random.integers(0, 120, (count, 8, 8))
        images += 100 * (np.arange(8) // 2 == labels[:, None])[:, None, :]
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    path = tmp_path / "stripes.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def tiny_cell(stripes: str) -> Callable[..., Cell]:
    """A cell that trains in a moment; with other fields if given."""

    def make(variant: str = "compact", *, seed: int = 0, epochs: int = 2, **more) -> Cell:
        recipe = replace(QUICK, epochs=epochs, lr=more.pop("lr", QUICK.lr))
        return Cell("digitnet", variant, stripes, recipe, seed, **more)

    return make
