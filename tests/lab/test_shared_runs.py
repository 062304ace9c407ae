"""Experiments, probes and pages of several processes in the same folders."""

import json
from dataclasses import replace

import pytest

from weightfold.files import FolderLockedError, locked
from weightfold.lab.compare import compare
from weightfold.lab.experiment import PRESETS, Column, Experiment, Line, Preset
from weightfold.lab.measures import LAST_ACCURACY
from weightfold.lab.printed import Printed
from weightfold.lab.probing import calling
from weightfold.lab.run import Execution
from weightfold.lab.runner import run_cells
from weightfold.lab.running import report_experiment
from weightfold.lab.training import Training
from weightfold.train import Recipe
from weightfold.train.checkpoint import finished

QUICK = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)


def sessions(folder):
    return len(json.loads((folder / "run.json").read_text())["sessions"])


def figures(history):
    return [replace(row, seconds=0, seconds_per_step=0) for row in history.rows]


def test_two_calls_share_the_cells_of_a_folder(tiny_run, two_writers, tmp_path):
    """Each waits for what the other is at: no cell is trained twice, or refused."""
    cells, runs = [tiny_run(seed=seed) for seed in range(4)], tmp_path / "runs"
    alone = run_cells(cells, tmp_path / "alone", progress=False)

    def call():
        found = run_cells(cells, runs, progress=False)
        assert [figures(one) for one in found.values()] == [figures(o) for o in alone.values()]

    def read():
        done = {cell: cell.finished(runs) for cell in cells}
        return all(h is None or figures(h) == figures(alone[cell]) for cell, h in done.items())

    two_writers([call, call], read, [True])
    assert [sessions(runs / cell.folder) for cell in cells] == [1] * 4


def test_two_calls_share_a_probe(fake_probe, stripes, two_writers, tmp_path):
    cell = calling("brightness", "digitnet", stripes, power=0.5, seeds=3)
    alone = cell.train(tmp_path / "alone", progress=False)

    def call():
        found = run_cells([cell], tmp_path, progress=False)[cell]
        assert found.values == alone.values

    def read():
        found = cell.finished(tmp_path)
        return found is None or found.values == alone.values

    two_writers([call, call], read, [True])
    assert sessions(tmp_path / cell.folder) == 1


def test_a_probe_whose_folder_is_written_is_refused_at_once(fake_probe, stripes, tmp_path):
    cell = calling("brightness", "digitnet", stripes, seeds=2)
    with locked(tmp_path / cell.folder), pytest.raises(FolderLockedError, match=cell.folder):
        cell.train(tmp_path, progress=False)
    found = cell.train(tmp_path, progress=False)
    with locked(tmp_path / cell.folder):
        assert cell.train(tmp_path, progress=False) == found


def test_a_comparison_whose_folder_is_written_is_refused_at_once(stripes, tmp_path):
    def call():
        compare(
            "digitnet", stripes, ["compact", "cl,rate=2"], seeds=[0, 1], recipe=QUICK,
            folder=tmp_path / "compared", execution=Execution(progress=False),
        )  # fmt: skip

    with locked(tmp_path / "compared"), pytest.raises(FolderLockedError, match="compared"):
        call()
    assert not list((tmp_path / "compared").iterdir())


@pytest.fixture
def made_up(stripes):
    """An experiment on the stripes."""

    def runs(variant):
        return dict.fromkeys(PRESETS, Training("digitnet", variant, stripes, QUICK))

    return Experiment(
        name="made-up",
        paper="Nobody",
        title="stripes told apart",
        columns=(Column("stripes", "Stripes", 4, (1, 8, 8)),),
        measures=(LAST_ACCURACY,),
        lines=(
            Line("plain", runs("compact"), {"last_accuracy": Printed(50.0, 0.5)}),
            Line("CL", runs("cl,rate=2")),
        ),
        presets=dict.fromkeys(PRESETS, Preset(2, "everything", data=stripes)),
    )


def test_pages_are_written_one_after_the_other(made_up, two_writers, tmp_path):
    """Two processes report the same experiment, one half finished and one not begun."""
    cell = made_up.runs("smoke")["plain"][0]
    run_cells([cell], tmp_path / "runs", progress=False)
    assert finished(tmp_path / "runs" / cell.folder)
    folder = tmp_path / "made-up" / "smoke"

    def writer(runs):
        def write():
            for _ in range(3):
                report_experiment(made_up, "smoke", tmp_path, runs=tmp_path / runs)

        return write

    report_experiment(made_up, "smoke", tmp_path)

    def read():
        json.loads((folder / "results.json").read_text())
        page = (folder / "index.html").read_text()
        return page.rstrip().endswith("</html>")

    two_writers([writer("runs"), writer("none")], read, [True])
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
