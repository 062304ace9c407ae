import pytest
import torch
from torch import nn

from weightfold.data import Dataset, Examples


def blobs(count, seed):
    """Points around three corners of a cube in eight dimensions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    points = torch.randn(count, 8, generator=generator)
    points[torch.arange(count), labels] += 2
    return Examples(points, labels)


@pytest.fixture(scope="session")
def samples():
    return Dataset("blobs", blobs(200, 0), blobs(100, 1), num_classes=3)


@pytest.fixture(scope="session")
def net_of_seed():
    def of_seed(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 3))

    return of_seed
