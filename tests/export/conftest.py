"""One small network trained on scikit-learn's digits, and one of each file made from it."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from weightfold.export import ExportReport, QuantizedNet, quantize_aware, to_onnx


class DigitConvNet(nn.Module):
    """Convolutions with batch norms whose eps is not the default, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16, eps=1e-3)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32, eps=1e-2, momentum=0.3)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)) + x)
        return self.fc(F.dropout(F.max_pool2d(x, 2).flatten(1), 0.1, self.training))


@dataclass(frozen=True)
class Trained:
    net: DigitConvNet
    training: list[tuple[Tensor, Tensor]]
    test: list[tuple[Tensor, Tensor]]

    @property
    def images(self) -> Tensor:
        return torch.cat([images for images, _ in self.training])


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(one_thread) -> Trained:
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels = (images[order] - 4.9) / 6.0, labels[order]
    training = list(zip(images[:1200].split(50), labels[:1200].split(50), strict=True))
    test = list(zip(images[1200:].split(200), labels[1200:].split(200), strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DigitConvNet()
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(3):
            for x, y in training:
                optimizer.zero_grad()
                F.cross_entropy(net(x), y).backward()
                optimizer.step()
    return Trained(net.eval(), training, test)


@pytest.fixture(scope="session")
def exported(trained: Trained, tmp_path_factory) -> ExportReport:
    return to_onnx(trained.net, trained.images[:1], tmp_path_factory.mktemp("onnx") / "net.onnx")


@pytest.fixture(scope="session")
def aware(trained: Trained) -> QuantizedNet:
    return quantize_aware(trained.net, trained.training, steps=48, lr=1e-3, cpu="x86")


def count_correct(net: nn.Module, test: list[tuple[Tensor, Tensor]]) -> float:
    """Accuracy, written down once more."""
    with torch.no_grad():
        hits = [float(net(x).argmax(1)[i] == y[i]) for x, y in test for i in range(len(y))]
    return sum(hits) / len(hits)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
