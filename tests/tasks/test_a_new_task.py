"""A task of one's own, and a data set of its targets: a class and a function, no other file."""

import json
from dataclasses import dataclass

import pytest
import torch

from weightfold.cli import main
from weightfold.data import Dataset, Examples, reader
from weightfold.data.registry import readers
from weightfold.tasks import Measure, Task, available, register


@register("toy-huber")
@dataclass(frozen=True, eq=False)
class Huber(Task):
    """Regression that outliers do not pull."""

    measures = (Measure("far", "share of errors above 1", higher_is_better=False, share=True),)

    def losses(self, outputs, targets):
        return torch.nn.functional.huber_loss(outputs, targets, reduction="none").mean(dim=1)

    def scores(self, outputs, targets):
        return {"far": ((outputs - targets).abs() > 1).float().mean(dim=1)}

    def wanted(self, targets):
        return tuple(targets.shape)

    def baseline(self):
        return (self.dataset.test.targets.abs() > 1).float().mean().item()


@pytest.fixture
def brightness():
    readers()

    @reader("toy-brightness")
    def read() -> Dataset:
        """Images and how bright they are, above and below."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (80, 1, 8, 8), generator=generator, dtype=torch.uint8)
        halves = images.float().div(255).flatten(2).unflatten(2, (2, 32)).mean(dim=3)[:, 0]
        targets = 20 * (halves - 0.5)
        parts = (Examples(images[s], targets[s]) for s in (slice(60), slice(60, 80)))
        return Dataset("toy-brightness", *parts, mean=(0.5,), std=(0.3,))

    readers.cache_clear()


def test_it_runs_from_the_command_line(brightness, tmp_path, capsys):
    assert "toy-huber" in available()
    options = ["--epochs", "3", "--crop-padding", "0", "--no-flip", "--device", "cpu"]
    argv = ["train", "--model", "digitnet", "--data", "toy-brightness", "--folder", str(tmp_path)]
    assert main([*argv, "--task", "toy-huber", *options]) in (0, None)
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["measures"][0]["name"] == "far"
    assert (
        f"test far {history['last_far']:.2%} after the last of 3 epochs" in capsys.readouterr().out
    )
    assert "test_far" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
