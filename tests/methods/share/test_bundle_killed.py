"""A bundle whose writer is killed (SIGKILL) at every step holds the old domains or the new ones."""

import itertools
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share


def model():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


@pytest.fixture
def two(tmp_path):
    """A net of two domains, saved."""
    plan = plan_sharing(model(), "top", 0.5, example_input=torch.zeros(1, 1, 8, 8))
    net = share(model(), {"birds": 2, "cars": 3}, plan)
    wf.save(net, tmp_path / "two")
    return net, tmp_path / "two"


@pytest.fixture
def three(two, tmp_path):
    """The same net with a third domain, saved."""
    wf.save(two[0], tmp_path / "three")
    net = wf.load(tmp_path / "three", model())
    net.add_domain("dogs", 4, from_domain="cars")
    wf.save(net, tmp_path / "three")
    return net, tmp_path / "three"


def bits(net):
    return {n: t.detach().numpy().tobytes() for n, t in net.state_dict().items()}


def killed_at(call, change):
    """Make a change, and be killed at the given call that touches a file."""
    count = itertools.count(1)

    def watch(function):
        def watched(*args, **kwargs):
            if next(count) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return watched

    for name in ("replace", "unlink", "write_bytes", "write_text"):
        setattr(Path, name, watch(getattr(Path, name)))
    change()


@pytest.mark.parametrize("kind", ["save", "add", "import", "remove"])
def test_killed_at_every_step(two, three, tmp_path, kind):
    start, end = (three, two) if kind == "remove" else (two, three)
    changes = {
        "save": lambda folder: wf.save(end[0], folder),
        "add": lambda folder: Bundle(folder).add(end[0], "dogs"),
        "import": lambda folder: Bundle(folder).import_delta(end[1], "dogs"),
        "remove": lambda folder: Bundle(folder).remove("dogs"),
    }
    outcomes = []
    for call in itertools.count(1):
        folder = Path(shutil.copytree(start[1], tmp_path / f"{call}"))
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=killed_at, args=(call, lambda f=folder: changes[kind](f)))
        process.start()
        process.join()
        outcomes.append([bits(start[0]), bits(end[0])].index(bits(wf.load(folder, model()))))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        wf.save(start[0], folder)
        assert {f.name for f in folder.iterdir()} == {f.name for f in start[1].iterdir()}
    assert outcomes == sorted(outcomes) and outcomes[0] == 0 and outcomes[-1] == 1
    assert len(outcomes) > 4, "the manifest alone is written, renamed, and its old name unlinked"
