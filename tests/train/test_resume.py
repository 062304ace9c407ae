import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from weightfold.files import replacing
from weightfold.train import Options, Recipe, fit

KILLED = """
import os, runpy, signal, sys
import torch
from weightfold.train import fit
torch.set_num_threads(1)
toy = runpy.run_path(sys.argv[1])
net, steps = toy["toy_net"](), 0
def kill(module, args, output):
    global steps
    steps += module.training
    if steps == 2 * 4 + 3:  # the third of the four steps of the third epoch
        os.kill(os.getpid(), signal.SIGKILL)
net.register_forward_hook(kill)
recipe = toy["replace"](toy["QUICK"], **eval(sys.argv[3]))
fit(net, toy["toy_dataset"](), recipe, folder=sys.argv[2], seed=5, device="cpu", progress=False)
"""


def train(net, data, recipe, folder, *, seed=5, progress=False, **options):
    return fit(
        net,
        data,
        recipe,
        seed=seed,
        folder=folder,
        device="cpu",
        progress=progress,
        options=Options(**options),
    )


def figures(history):
    return [replace(row, seconds=0, seconds_per_step=0) for row in history.rows]


def test_killed_in_mid_epoch_it_ends_with_the_same_bits(dataset, make_net, quick, tmp_path):
    changes = {"clip_norm": 1.0, "flip": True, "crop_padding": 2}
    here = Path(__file__).with_name("conftest.py")
    arguments = [sys.executable, "-c", KILLED, str(here), str(tmp_path / "killed"), repr(changes)]
    killed = subprocess.run(arguments, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    state = torch.load(tmp_path / "killed" / "last.pt", weights_only=True)
    assert len(state["runs"][0]["rows"]) == 2

    recipe = replace(quick, **changes)
    net, other = make_net(), make_net()
    whole = train(net, dataset, recipe, tmp_path / "whole")
    resumed = train(other, dataset, recipe, tmp_path / "killed")
    for name in ("last.safetensors", "best.safetensors"):
        one, two = ((tmp_path / f / name).read_bytes() for f in ("whole", "killed"))
        assert one == two
    assert figures(resumed) == figures(whole)


@pytest.mark.parametrize("optimizer", [{"optimizer": "adamw", "lr": 1e-3}, {"momentum": 0.9}])
def test_control_c_leaves_the_checkpoint(dataset, make_net, quick, tmp_path, optimizer):
    recipe = replace(quick, **optimizer)

    def interrupt(row):
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_net(), dataset, recipe, tmp_path / "a", progress=interrupt)
    resumed, whole = make_net(), make_net()
    train(resumed, dataset, recipe, tmp_path / "a")
    train(whole, dataset, recipe, tmp_path / "b")
    for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_run_is_returned_at_once(dataset, make_net, quick, tmp_path):
    net = make_net()
    history = train(net, dataset, quick, tmp_path)

    def untrainable(module, given):
        raise AssertionError("trained again")

    other = make_net()
    other.register_forward_pre_hook(untrainable)
    assert train(other, dataset, quick, tmp_path) == history
    assert torch.equal(other[0].weight, net[0].weight)
    with pytest.raises(FileExistsError, match="resume=True"):
        train(make_net(), dataset, quick, tmp_path, resume=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": Recipe(epochs=4, batch_size=16)}, "recipe.batch_size: 32 there, 16 now"),
        ({"seed": 6}, "seed: 5 there, 6 now"),
        ({"validation": 10}, "validation: 0 there, 10 now"),
        ({"record": {"made": "there"}}, "task.data.record.made: 'here' there, 'there' now"),
        ({"width": 5}, r"network.tensors.0.weight: 'torch.float32 \[4, 1, 3, 3\]' there"),
        ({"about": {"init": "variance"}}, "about.init: absent there, 'variance' now"),
        ({"precision": "bf16-mixed"}, "precision"),
    ],
)
def test_another_run_in_the_folder_is_refused(dataset, make_net, quick, tmp_path, change, message):
    quick = replace(quick, epochs=1)
    train(make_net(), dataset, quick, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    net = make_net()
    if "width" in change:
        net[0] = nn.Conv2d(1, change.pop("width"), 3)
    if "record" in change:
        dataset = replace(dataset, record=change.pop("record"))
    with pytest.raises(FileExistsError, match=message):
        train(net, dataset, change.pop("recipe", quick), tmp_path, **change)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_truncated_checkpoint_is_named(dataset, make_net, quick, tmp_path):
    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_net(), dataset, quick, tmp_path, progress=stop)
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(RuntimeError, match=r"last\.pt cannot be read"):
        train(make_net(), dataset, quick, tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_weights_of_tied_tensors_are_written(dataset, quick, tmp_path):
    shared = nn.Linear(64, 64)
    net = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(64, 4))
    train(net, dataset, replace(quick, epochs=1), tmp_path)
    state = load_file(tmp_path / "last.safetensors")
    assert torch.equal(state["1.weight"], state["3.weight"])
    assert all(path.stat().st_mode & 0o44 for path in tmp_path.iterdir())


def test_weights_of_another_epoch_in_a_finished_run_are_refused(dataset, make_net, quick, tmp_path):
    """The file is whole and its own hash is right; it is not the one the history ended with."""
    train(make_net(), dataset, quick, tmp_path / "a")
    train(make_net(), dataset, replace(quick, epochs=1), tmp_path / "b")
    (tmp_path / "b" / "last.safetensors").replace(tmp_path / "a" / "last.safetensors")
    with pytest.raises(ValueError, match=r"last\.safetensors"):
        train(make_net(), dataset, quick, tmp_path / "a")
