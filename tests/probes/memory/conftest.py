import pytest
import torch
from torch import nn

from weightfold.data import Dataset, Examples


def blobs(count: int, seed: int, dims: int = 24) -> Examples:
    """Four classes around corners of a cube, far enough apart that a network tells most."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    centers = torch.eye(4, dims) * 2.5
    return Examples(centers[y] + torch.randn(count, dims, generator=generator), y)


def make_net(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 4))


@pytest.fixture(scope="session")
def data() -> Dataset:
    return Dataset("blobs", blobs(80, 0), blobs(60, 1), 4)


@pytest.fixture(scope="session")
def network():
    return make_net
