"""Two trainers in one folder: one trains, the other is refused or finds the run finished."""

import json
import multiprocessing
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from weightfold.data.samples import as_samples
from weightfold.files import FolderLockedError, locked
from weightfold.train import fit, fit_seeds
from weightfold.train.checkpoint import finished
from weightfold.train.runs import Start
from weightfold.train.strategies.together import train_together

FORK = multiprocessing.get_context("fork")
WEIGHTS = ("last.safetensors", "best.safetensors")


@pytest.fixture
def train(dataset, make_net, quick):
    def train(folder, progress=False):
        net = make_net()
        options = {"seed": 5, "device": "cpu", "progress": progress}
        fit(net, dataset, replace(quick, epochs=6), folder=folder, **options)
        return net

    return train


def same_weights(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in WEIGHTS)


def test_two_trainers_and_a_reader(train, two_writers, tmp_path):
    keys = set(train(tmp_path / "alone").state_dict())
    folder, epochs = tmp_path / "run", FORK.Value("i", 0)

    def count(row):
        with epochs.get_lock():
            epochs.value += 1

    def trainer():
        while finished(folder) is None:
            try:
                train(folder, count)
            except FolderLockedError:
                continue

    def read():
        """Whether each file that there is can be read."""
        for name in ("run.json", "history.json"):
            if (folder / name).exists():
                json.loads((folder / name).read_text())
        weights = [folder / name for name in WEIGHTS if (folder / name).exists()]
        return all(set(load_file(path)) == keys for path in weights)

    two_writers([trainer, trainer], read, [True])
    assert same_weights(folder, tmp_path / "alone")
    assert epochs.value == 6
    assert len(json.loads((folder / "run.json").read_text())["sessions"]) == 1
    assert not (folder / ".lock").exists()


def test_a_second_trainer_is_refused_until_the_first_is_killed(train, tmp_path):
    train(tmp_path / "alone")
    folder, begun = tmp_path / "run", FORK.Event()

    def stop(row):
        if row.epoch == 3:
            begun.set()
            signal.pause()

    def first():
        torch.set_num_threads(1)
        train(folder, stop)

    process = FORK.Process(target=first)
    process.start()
    while not begun.wait(1):
        assert process.is_alive(), f"the first trainer ended with {process.exitcode}"
    try:
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        with pytest.raises(FolderLockedError, match=f"folder='{folder}'"):
            train(folder)
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    finally:
        process.kill()
        process.join()
    train(folder)
    assert same_weights(folder, tmp_path / "alone")


def test_a_finished_run_is_read_while_its_folder_is_locked(train, tmp_path):
    net = train(tmp_path)
    with locked(tmp_path):
        again = train(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_seeds_and_runs_side_by_side_take_the_lock_too(dataset, make_net, quick, tmp_path):
    def seeds():
        return fit_seeds(
            lambda seed: make_net(seed)[:4].extend(make_net(seed)[5:]),
            dataset, quick, [0, 1], folder=tmp_path / "seeds", progress=False,
        )  # fmt: skip

    def together():
        return train_together(
            {"one": Start(make_net(), as_samples(dataset), 0)}, quick, folder=tmp_path / "together"
        )

    for folder, call in (("seeds/1", seeds), ("together/one", together)):
        with locked(tmp_path / folder), pytest.raises(FolderLockedError, match=folder):
            call()
        assert not list((tmp_path / folder).iterdir()), "nothing was written"
        found = call()
        with locked(tmp_path / folder):
            assert call() == found
