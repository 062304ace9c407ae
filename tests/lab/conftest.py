import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from weightfold.core.arguments import gathered
from weightfold.data.pairs import Data, as_dataset
from weightfold.lab.training import Training
from weightfold.probes import registry
from weightfold.probes.finding import Finding
from weightfold.probes.models import Model, net_of
from weightfold.probes.registry import Probe
from weightfold.report.figures import drawing
from weightfold.train import Recipe
from weightfold.train.progress import Progress, ProgressCallback, progress_bar

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


@dataclass(frozen=True)
class BrightnessOptions:
    power: float = 1.0
    parts: tuple[str, ...] = ("train",)

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power={self.power}: give more than 0")


def brightness(
    net: Model,
    data: Data,
    *,
    seeds: range = range(2),
    folder: Path | None = None,
    device: str = "auto",
    progress: bool | ProgressCallback = True,
    recipe: Recipe = QUICK,
    **options: Any,
) -> Brightness:
    samples = as_dataset(data)
    chosen = gathered(BrightnessOptions, options)
    power, parts = chosen.power, chosen.parts
    if folder is not None:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    values = []
    with progress_bar(progress, "brightness") as show:
        for seed in seeds:
            light = sum(samples.parts[part].inputs.double().mean().item() for part in parts)
            weights = sum(p.double().abs().sum().item() for p in net_of(net, seed).parameters())
            values.append((light * weights) ** power * recipe.lr)
            show(Progress(seed + 1, len(seeds), f"seed {seed}"))
    return Brightness(values=tuple(values), notes=(f"power {power}",))


@pytest.fixture
def fake_probe(monkeypatch) -> Probe:
    """The probe "brightness", among those found."""
    module = SimpleNamespace(
        brightness=brightness, Brightness=Brightness, BrightnessOptions=BrightnessOptions
    )
    monkeypatch.setitem(sys.modules, "fake_probes", module)
    found = Probe(
        "brightness", "fake_probes:brightness:Brightness:BrightnessOptions", "how bright it is"
    )
    monkeypatch.setattr(registry, "probes", lambda: {"brightness": found})
    return found


STEPS = """
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from weightfold.files import write_json
from weightfold.train.progress import Progress


@dataclass(frozen=True)
class Steps:
    'A run of so many steps, of which its folder holds the count; `log` tells what was done.'

    name: str
    log: str
    steps: int = 3
    seconds: float = 0.0
    wrong: bool = False
    deaths: tuple[int, ...] = ()
    before: "Steps | None" = None

    @property
    def title(self):
        return self.name

    @property
    def folder(self):
        return self.name

    def finished(self, root):
        path = root / self.folder / "record.json"
        return json.loads(path.read_text()) if path.exists() else None

    def train(self, root, *, data_root=None, progress=True):
        self.note("start")
        if self.wrong:
            raise ArithmeticError(f"{self.name} is wrong")
        folder = root / self.folder
        state = folder / "state.json"
        step = json.loads(state.read_text())["step"] if state.exists() else 0
        folder.mkdir(parents=True, exist_ok=True)
        while step < self.steps:
            step += 1
            if self.count(f"died {step}") < self.deaths.count(step):
                self.note(f"died {step}")
                os.kill(os.getpid(), signal.SIGKILL)
            write_json(state, {"step": step})
            self.note(f"step {step}")
            progress(Progress(step, self.steps))
            time.sleep(self.seconds)
        taught = self.before.finished(root)["step"] if self.before else None
        write_json(folder / "record.json", {"step": step, "taught": taught})
        return self.finished(root)

    def note(self, text):
        with open(self.log, "a") as log:
            log.write(f"{self.name}: {text}\\n")

    def count(self, text):
        return Path(self.log).read_text().splitlines().count(f"{self.name}: {text}")
"""


@pytest.fixture(scope="session")
def steps_module(tmp_path_factory) -> Iterator[ModuleType]:
    """The module of `Steps`, which processes started from here can import."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "steps_cells.py").write_text(STEPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield importlib.import_module("steps_cells")


@pytest.fixture
def steps(steps_module: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Makes a cell that is run in a moment, and tells in the file log what was done."""
    log = tmp_path / "log"
    log.touch()
    return partial(steps_module.Steps, log=str(log))


@pytest.fixture
def logged(tmp_path: Path) -> Callable[[], list[str]]:
    """What cells have told."""
    return lambda: (tmp_path / "log").read_text().splitlines()
