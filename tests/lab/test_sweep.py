from dataclasses import replace

import numpy as np
import pytest

from weightfold.cli import main
from weightfold.lab.probing import Probing, as_options, calling, measure
from weightfold.lab.run import HERE
from weightfold.lab.runner import CellsFailed
from weightfold.lab.sweep import InspectionRun, inspect_on, probe_on
from weightfold.train import Recipe

QUIET = replace(HERE, progress=False)
RECIPE = Recipe(epochs=1, batch_size=16, lr=0.05, crop_padding=0, flip=False)


@pytest.fixture
def call(stripes) -> Probing:
    options = as_options({"bn": "keep", "draws": 1, "reset_to": ()})
    return Probing("layer-reset", "digitnet", stripes, options, RECIPE, seeds=2)


def test_seeds_probed_apart_find_what_they_find_together(call, tmp_path):
    together = measure(call, tmp_path / "together", progress=False)
    apart = probe_on(call, tmp_path / "apart", QUIET)
    assert replace(apart, sessions=()) == replace(together, sessions=())
    assert len(apart.sessions) == 2
    runs = [path for path in (tmp_path / "apart" / "runs").iterdir() if path.name[0] != "."]
    assert len(runs) == 2 and (tmp_path / "apart" / "index.html").exists()


def test_finished_seeds_are_read_and_another_probe_is_refused(call, tmp_path):
    found = probe_on(call, tmp_path, QUIET)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")}
    assert probe_on(call, tmp_path, QUIET).cells == found.cells
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")} == made
    with pytest.raises(FileExistsError, match="seeds: 2 there, 3 now"):
        probe_on(replace(call, seeds=3), tmp_path, QUIET)


def test_seeds_that_depend_on_each_other_are_one_run(fake_probe, stripes, tmp_path):
    call = calling("brightness", "digitnet", stripes, power=0.5, seeds=2)
    found = probe_on(call, tmp_path, QUIET)
    assert len(found.values) == 2
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.name[0] != "."] == [call.folder]


def test_a_seed_that_fails_is_named(call, tmp_path):
    with pytest.raises(CellsFailed, match="no network 'digitnett'"):
        probe_on(replace(call, model="digitnett"), tmp_path, QUIET)


def test_an_inspection_is_a_run(tmp_path):
    run = InspectionRun("digitnet", "digits,limit=60", minutes=0.001)
    found = inspect_on(run, tmp_path, QUIET)
    assert found.page == tmp_path / run.folder / "index.html" and found.page.exists()
    assert replace(run, minutes=5.0).folder == run.folder


def test_the_command_line_probes_on_an_executor(stripes, tmp_path, capsys):
    given = ["--model", "digitnet", "--data", stripes, "--folder", str(tmp_path / "out")]
    spec = "layer-reset,bn=keep,draws=1,reset_to=0,epochs=1"
    assert main(["probe", spec, *given, "--seeds", "1", "--on", "local"]) == 0
    assert "everything is in" in capsys.readouterr().out
    for more, said in (
        (["--on", "nowhere"], "on='nowhere'"),
        (["--on", "local", "--device", "cpu"], "device='cpu' with on='local'"),
    ):
        assert main(["probe", spec, *given[:-1], str(tmp_path / "no"), *more]) == 2
        assert said in capsys.readouterr().err


def test_a_task_of_the_command_line_is_what_is_probed(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    y = (x.mean(axis=(1, 2)) / 255).astype(np.float32)
    path = tmp_path / "means.npz"
    np.savez(path, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    given = ["--model", "mlp,size=8", "--data", str(path), "--task", "regress"]
    spec = "layer-reset,bn=keep,draws=1,epochs=1,batch_size=8"
    main(["probe", spec, *given, "--folder", str(tmp_path / "out"), "--seeds", "1"])
    shown = capsys.readouterr()
    assert "mse" in shown.out, shown.err
