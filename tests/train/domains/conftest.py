import pytest
import torch
from torch import nn

from weightfold.data import Dataset, Examples
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.train import Recipe

CLASSES = {"birds": 4, "cars": 3}


def stripes(count: int, classes: int, size: int, seed: int) -> Examples:
    """Images of class c with column c bright, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    labels[:classes] = torch.arange(classes)
    images = torch.randint(0, 120, (count, 1, size, size), generator=generator)
    images = images + 100 * (torch.arange(size) == labels[:, None])[:, None, None, :]
    return Examples(images.to(torch.uint8), labels)


def toy_dataset(name: str, images: int, classes: int, size: int = 8) -> Dataset:
    return Dataset(
        name=name,
        train=stripes(images, classes, size, 0),
        test=stripes(40, classes, size, 1),
        num_classes=classes,
        mean=(0.3,),
        std=(0.25,),
        class_names=tuple(map(str, range(classes))),
    )


def toy_datasets() -> dict[str, Dataset]:
    return {"birds": toy_dataset("b", 64, 4), "cars": toy_dataset("c", 40, 3)}


class ToyNet(nn.Module):
    """Two convolutions with batch norm, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((1, 4)),
        )
        self.classifier = nn.Linear(32, 5)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def toy_net(seed: int = 0, fraction: float = 0.3, classes=CLASSES):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ToyNet()
    plan = plan_sharing(model, strategy="bottom", fraction=fraction)
    return share(model, domains=classes, plan=plan)


QUICK = Recipe(epochs=3, batch_size=16, lr=0.05, weight_decay=1e-2, crop_padding=0, flip=False)


@pytest.fixture
def make_net():
    return toy_net


@pytest.fixture
def datasets():
    return toy_datasets()


@pytest.fixture
def make_dataset():
    return toy_dataset


@pytest.fixture
def quick():
    return QUICK
