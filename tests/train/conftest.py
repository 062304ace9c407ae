from dataclasses import replace as replace

import pytest
import torch
from torch import nn

from weightfold.data import Dataset, Examples
from weightfold.train import Recipe


def stripes(count: int, seed: int) -> Examples:
    """8 x 8 images of class c with columns 2c and 2c + 1 bright, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.randint(0, 120, (count, 1, 8, 8), generator=generator)
    bright = torch.arange(8) // 2 == labels[:, None]
    images = images + 100 * bright[:, None, None, :]
    return Examples(images.to(torch.uint8), labels)


def toy_dataset() -> Dataset:
    return Dataset(
        name="stripes",
        train=stripes(120, 0),
        test=stripes(60, 1),
        num_classes=4,
        mean=(0.3,),
        std=(0.25,),
        class_names=("a", "b", "c", "d"),
        record={"made": "here"},
    )


def toy_net(seed: int = 0) -> nn.Sequential:
    """A convolution with batch norm, dropout and a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(64, 4),
        )


QUICK = Recipe(epochs=4, batch_size=32, lr=0.05, crop_padding=0, flip=False)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def dataset() -> Dataset:
    return toy_dataset()


@pytest.fixture
def make_net():
    return toy_net


@pytest.fixture
def quick() -> Recipe:
    return QUICK
