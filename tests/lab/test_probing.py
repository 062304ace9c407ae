import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from weightfold.data.pairs import as_dataset
from weightfold.lab.probing import Probing, as_options, calling, measure, model_of, samples_of
from weightfold.lab.runner import CellsFailed, run_cells
from weightfold.probes import registry
from weightfold.probes.models import net_of
from weightfold.train import Recipe


@pytest.fixture
def call(fake_probe, stripes) -> Probing:
    return calling("brightness", "digitnet", stripes, power=0.5, seeds=3)


def test_a_cell_is_probed_once(call, tmp_path):
    heard = []
    assert call.finished(tmp_path) is None
    found = call.train(tmp_path, progress=heard.append)
    assert [(now.completed, now.total, now.text) for now in heard] == [
        (1, 3, "seed 0"), (2, 3, "seed 1"), (3, 3, "seed 2")
    ]  # fmt: skip
    assert found.notes == ("power 0.5",) and len({*found.values}) == 3
    assert len(found.sessions) == 1
    assert call.finished(tmp_path) == found
    assert call.train(tmp_path, progress=heard.append) == found
    assert len(heard) == 3
    folder = tmp_path / call.folder
    assert "Brightness" in (folder / "index.html").read_text()
    assert json.loads((folder / "result.json").read_text())["probe"] == "brightness"


def test_every_session_is_recorded(call, tmp_path, monkeypatch):
    def stopped(now):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call.train(tmp_path, progress=stopped)
    assert len(call.train(tmp_path, progress=False).sessions) == 2


def test_calls_differ_in_folder_and_result(call, fake_probe, stripes, tmp_path):
    others = [
        replace(call, seeds=2),
        replace(call, recipe=replace(fake_probe.recipe, lr=0.1)),
        replace(call, options=as_options({"power": 0.5, "parts": ["train", "test"]})),
        replace(call, recipe=Recipe(lr=0.2)),
        replace(call, variant="cl,rate=2"),
        replace(call, disturb="gaussian,seed=1"),
        replace(call, data=f"{stripes},limit=10"),
    ]
    found = [one.train(tmp_path, progress=False) for one in (call, *others)]
    assert len({f.values for f in found}) == len(found)
    assert len({one.folder for one in (call, *others)}) == len(found)
    assert found[2].values[0] == pytest.approx(2 * found[0].values[0])  # lr 0.05 -> 0.1


def test_a_folder_of_another_probe_is_refused(call, tmp_path):
    measure(call, tmp_path, progress=False)
    with pytest.raises(FileExistsError, match=r"seeds: 3 there, 2 now"):
        measure(replace(call, seeds=2), tmp_path, progress=False)


def test_a_folder_of_other_data_of_the_same_name_is_refused(call, stripes, tmp_path):
    measure(call, tmp_path / "a", progress=False)
    arrays = dict(np.load(stripes))
    np.savez(stripes, **arrays | {"y_train": arrays["y_train"][::-1]})
    with pytest.raises(FileExistsError, match="contents"):
        measure(call, tmp_path / "a", progress=False)


def test_a_trained_network_is_searched_for_critical_samples(stripes, tiny_run, tmp_path):
    trained = tiny_run()
    trained.train(tmp_path, progress=False)
    weights = str(tmp_path / trained.folder / "last.safetensors")
    call = calling("critical-samples", "digitnet", stripes, radius=9.0, weights=weights)
    found = call.train(tmp_path, progress=False)
    assert found.searches[0].examples == 40 and call.finished(tmp_path) == found


def test_a_refused_probe_leaves_its_folder_free(call, tmp_path):
    with pytest.raises(ValueError, match=r"power=-1\.0"):
        measure(replace(call, options=(("power", -1.0),)), tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


def test_data_is_disturbed_and_limited(call):
    clean = samples_of(call)
    noisy = samples_of(replace(call, disturb="random-labels,fraction=0.5,seed=3", test_limit=7))
    (entry,) = noisy.record["disturbed"]
    assert (entry["condition"], entry["fraction"], entry["seed"]) == ("random-labels", 0.5, 3)
    assert (noisy.train.targets != clean.train.targets).sum() == entry["labels_changed"] > 0
    assert len(noisy.test) == 7 and len(noisy.train) == len(clean.train)
    with pytest.raises(ValueError, match=r"'random-labels' has no option 'share'"):
        samples_of(replace(call, disturb="random-labels,share=0.5"))


def test_networks_are_those_of_the_seed(call):
    samples = samples_of(call)
    make = model_of(call, samples)
    nets = [net_of(make, seed).state_dict() for seed in (0, 0, 1)]
    weights = [state["fc1.weight"] for state in nets]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert net_of(make, 0)(torch.zeros(2, *as_dataset(samples).shape)).shape == (2, 4)


def test_a_network_may_start_from_weights(call, tiny_run, tmp_path):
    trained = tiny_run(seed=7)
    trained.train(tmp_path, progress=False)
    path = tmp_path / trained.folder / "last.safetensors"
    found = replace(call, weights=str(path)).train(tmp_path, progress=False)
    assert len({*found.values}) == 1 and found.values[0] != call.train(tmp_path).values[0]
    with pytest.raises(RuntimeError, match="Missing key"):
        replace(call, weights=str(path), variant="cl,rate=2").train(tmp_path, progress=False)
    with pytest.raises(FileNotFoundError):
        replace(call, weights=str(tmp_path / "none")).train(tmp_path, progress=False)


def test_a_probe_of_trained_networks_wants_weights(call, fake_probe, monkeypatch, tmp_path):
    other = replace(fake_probe, trained=True)
    monkeypatch.setattr(registry, "probes", lambda: {"brightness": other})
    with pytest.raises(ValueError, match=r"'brightness' needs those of a trained network"):
        call.train(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe": "brightnes"}, "did you mean 'brightness'?"),
        ({"options": (("pwer", 2.0),)}, "did you mean 'power'?"),
        ({"options": (("folder", "x"),)}, "no option 'folder'"),
        ({"model": "digitnt"}, "no network 'digitnt'"),
        ({"disturb": "noise"}, "condition='noise'"),
        ({"model": ""}, "model='': probe 'brightness' needs a model"),
        ({"seeds": 0}, "seeds=0"),
    ],
)
def test_wrong_calls_are_told(call, change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        replace(call, **change).train(tmp_path, progress=False)


def test_the_runner_runs_probes_beside_networks(call, tiny_run, tmp_path):
    network, bad = tiny_run(), replace(call, options=(("power", -2.0),))
    with pytest.raises(CellsFailed) as error:
        run_cells([call, network, bad], tmp_path)
    assert set(error.value.failed) == {bad}
    assert error.value.finished[call] == call.finished(tmp_path)
    assert error.value.finished[network].rows
