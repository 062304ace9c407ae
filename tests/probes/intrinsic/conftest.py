import pytest
import torch
from torch import nn

from weightfold.data import Dataset, Examples
from weightfold.train.recipe import Recipe

QUICK = Recipe(epochs=3, batch_size=32, lr=0.3, schedule="constant", crop_padding=0, flip=False)


def blobs(count: int, seed: int) -> Examples:
    """Six inputs around one of three centres."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (count,), generator=generator)
    centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(7))
    return Examples(2 * centres[y] + torch.randn(count, 6, generator=generator), y)


@pytest.fixture(scope="session")
def samples() -> Dataset:
    return Dataset("blobs", blobs(160, 0), blobs(300, 1), 3)


@pytest.fixture(scope="session")
def quick() -> Recipe:
    return QUICK


def mlp(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="session")
def make_net():
    return mlp
