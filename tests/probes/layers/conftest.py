import pytest
import torch
from torch import Tensor, nn

from weightfold.data import Dataset, Examples


class Small(nn.Module):
    """Two convolutions with batch norm, dropout, a linear layer."""

    def __init__(self, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__()
            self.conv1 = nn.Conv2d(1, 3, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(3)
            self.conv2 = nn.Conv2d(3, 4, 3, padding=1)
            self.bn2 = nn.BatchNorm2d(4)
            self.dropout = nn.Dropout(0.3)
            self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), 2)
        return self.fc(self.dropout(x).flatten(1))


def stripes(count: int, seed: int) -> Examples:
    """8 x 8 images of class c with columns 2c and 2c + 1 bright, under noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (count,), generator=generator)
    x = torch.rand(count, 1, 8, 8, generator=generator)
    bright = torch.arange(8) // 2 == y[:, None]
    return Examples(x + 0.5 * bright[:, None, None, :], y)


def lived(net: nn.Module, seed: int) -> nn.Module:
    """Every tensor, running statistics included, as no initialisation leaves it."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator))
        else:
            tensor.fill_(100 + seed)
    return net


@pytest.fixture(scope="session")
def samples() -> Dataset:
    return Dataset("stripes", stripes(96, 0), stripes(60, 1), 4)


@pytest.fixture(scope="session")
def make_net():
    return Small


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    return lived(Small(0), 1)


@pytest.fixture(scope="session")
def other() -> nn.Module:
    return lived(Small(1), 2)
