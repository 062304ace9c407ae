import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from weightfold.data.samples import Data, as_samples
from weightfold.lab.training import Training
from weightfold.probes import registry
from weightfold.probes.finding import Finding
from weightfold.probes.models import Model, net_of
from weightfold.probes.registry import Probe
from weightfold.report.figures import drawing
from weightfold.train import Recipe
from weightfold.train.progress import Progress, Tell, telling

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
def tiny_run(stripes: str) -> Callable[..., Training]:
    """A run that trains in a moment; with other fields if given."""

    def make(variant: str = "compact", *, seed: int = 0, epochs: int = 2, **more) -> Training:
        recipe = replace(QUICK, epochs=epochs, lr=more.pop("lr", QUICK.lr))
        return Training("digitnet", variant, stripes, recipe, seed, **more)

    return make


@dataclass(frozen=True, kw_only=True)
class Brightness(Finding):
    """Mean and spread over seeds of something about a network and data, found in a moment."""

    probe: ClassVar[str] = "brightness"
    values: tuple[float, ...]

    @property
    def headline(self) -> str:
        return f"Brightness {fmean(self.values):.3f} over {len(self.values)} seeds."

    @property
    def meaning(self) -> str:
        return "How bright it is. Made up."

    def rows(self) -> list[dict]:
        return [{"seed": seed, "value": value} for seed, value in enumerate(self.values)]

    def draw(self, path: Path) -> None:
        with drawing(path, figsize=(3, 2)) as (_, axis):
            axis.plot(self.values)


def brightness(
    model: Model,
    data: Data,
    *,
    power: float = 1.0,
    parts: tuple[str, ...] = ("train",),
    recipe: Recipe = QUICK,
    seeds: range = range(2),
    folder: Path | None = None,
    device: str = "cpu",
    progress: bool | Tell = True,
) -> Brightness:
    samples = as_samples(data)
    if power <= 0:
        raise ValueError(f"power={power}: give more than 0")
    if folder is not None:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    values = []
    with telling(progress, "brightness") as tell:
        for seed in seeds:
            light = sum(samples.parts[part].x.double().mean().item() for part in parts)
            weights = sum(p.double().abs().sum().item() for p in net_of(model, seed).parameters())
            values.append((light * weights) ** power * recipe.lr)
            tell(Progress(seed + 1, len(seeds), f"seed {seed}"))
    return Brightness(values=tuple(values), notes=(f"power {power}",))


@pytest.fixture
def fake_probe(monkeypatch) -> Probe:
    """The probe "brightness", among those found."""
    module = SimpleNamespace(brightness=brightness, Brightness=Brightness)
    monkeypatch.setitem(sys.modules, "fake_probes", module)
    found = Probe("brightness", "fake_probes:brightness:Brightness", "how bright it is")
    monkeypatch.setattr(registry, "probes", lambda: {"brightness": found})
    return found
