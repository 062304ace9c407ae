"""What training and probes leave: run folders, checkpoints, masks, results."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mutation.harness import Format
from mutation.saved import outputs, seal
from weightfold.data import Dataset, Examples
from weightfold.lab.probing import read_finding
from weightfold.lab.saved import load_run
from weightfold.lab.variants import make_net
from weightfold.probes.finding import write_finding
from weightfold.probes.pendulum.finding import PendulumDimension, Trial
from weightfold.probes.tickets.masks_file import load_masks, write_masks
from weightfold.train import NonFiniteLoss, Options, Recipe, checkpoint, fit

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, crop_padding=0, flip=False)
ABOUT = {"model": "digitnet", "variant": "cl,rate=2", "data": "stripes"}


def dataset() -> Dataset:
    """32 images of four classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (32, 1, 8, 8), generator=generator).to(torch.uint8)
    part = Examples(pixels, torch.arange(32) % 4)
    return Dataset(
        name="noise",
        train=part,
        test=part,
        num_classes=4,
        mean=(0.5,),
        std=(0.25,),
        class_names=("a", "b", "c", "d"),
        record={"made": "here"},
    )


def network() -> nn.Module:
    """The network of the run."""
    return make_net(ABOUT["model"], ABOUT["variant"], seed=0, num_classes=4, image_shape=(1, 8, 8))


class Stopped(Exception):
    """Ends a training early."""


def train(folder: Path, stop: bool = False) -> nn.Module:
    """Train, or go on; with `stop`, until the first epoch is over."""

    def told(row: object) -> None:
        if stop:
            raise Stopped

    net = network()
    try:
        options = Options(about=ABOUT)
        how = {"folder": folder, "seed": 0, "device": "cpu", "progress": told}
        fit(net, dataset(), RECIPE, options=options, **how)
    except Stopped:
        assert stop
    return net


def write_run(folder: Path) -> None:
    """A finished run, whose seconds are always the same."""
    train(folder)
    history = checkpoint.load_history(folder / checkpoint.HISTORY)
    rows = tuple(replace(row, seconds=1.0, seconds_per_step=0.1) for row in history.rows)
    checkpoint.write_history(folder, replace(history, rows=rows))


def read_run(folder: Path) -> object:
    """Both networks, the history and the sessions, and what `fit` makes of the finished run."""
    nets = [load_run(folder, dataset(), "last"), load_run(folder, dataset(), "best")]
    history = checkpoint.finished(folder)
    again = outputs(train(folder))
    return [outputs(net) for net in nets], again, history, checkpoint.sessions_of(folder)


def write_checkpoint(folder: Path) -> None:
    """A run that was stopped after its first epoch."""
    train(folder, stop=True)


def read_checkpoint(folder: Path) -> object:
    """The network of the run gone on with, in a copy."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(folder, Path(temporary) / "run"))
        try:
            return outputs(train(copy))
        except NonFiniteLoss:
            return "weights with which it diverges"


def write_tickets(folder: Path) -> None:
    """A mask of one level and seed."""
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(4, 5, generator=generator) < 0.5 for n in ("a.weight", "b.weight")}
    write_masks(folder, {(1, 0): masks}, {})


def read_tickets(folder: Path) -> object:
    """The masks."""
    found = load_masks(folder)
    return {key: {n: m.numpy().tobytes() for n, m in one.items()} for key, one in found.items()}


def write_result(folder: Path) -> None:
    """What a probe found."""
    trials = tuple(
        Trial(dim, seed, 400.0 + 10 * seed + (dim or 9), 5)
        for dim in (1, 2, 4, None)
        for seed in (0, 1)
    )
    session = dict.fromkeys(
        ("started", "weightfold", "commit", "torch", "device", "cpu", "threads"), "x"
    )
    finding = PendulumDimension(
        threshold=0.9, trials=trials, notes=("a note",), sessions=(session,)
    )
    write_finding(finding, folder, title="pendulum")


def read_result(folder: Path) -> object:
    """The finding."""
    finding = read_finding(folder)
    if finding is None:
        raise FileNotFoundError(f"{folder}/result.json is missing")
    return finding.record(), finding.headline, finding.rows()


FORMATS = (
    Format("run", write_run, read_run, mutated="*.*s*", seal=seal),
    Format("checkpoint", write_checkpoint, read_checkpoint, mutated="last.pt"),
    Format("masks", write_tickets, read_tickets),
    Format("result", write_result, read_result, mutated="result.json", seal=seal),
)
