import pytest
import torch
from torch import nn

from weightfold.data import Dataset, Examples


def norm_net(dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """Smooth, with batch norm and a bias in every layer, in float64."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Softplus(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(2 * 16, 3),
    ).double()
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 1.5)
        net[1].running_mean.uniform_(-0.5, 0.5)
    return net.eval()


@pytest.fixture
def net() -> nn.Sequential:
    return norm_net()


@pytest.fixture(scope="session")
def samples() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 1, 6, 6, generator=generator)
    y = torch.arange(30) % 3
    return Dataset("noise", Examples(x, y), Examples(x[:9], y[:9]), 3)
