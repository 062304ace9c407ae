import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from weightfold.lab import runner
from weightfold.lab.runner import CellsFailed, run_cells
from weightfold.train import Distillation
from weightfold.train.checkpoint import finished

STOPPED = """
import sys
from pathlib import Path
from weightfold.lab.training import Training
from weightfold.lab.runner import run_cells
from weightfold.train import Recipe
if __name__ == "__main__":
    recipe = Recipe(epochs=100_000, batch_size=32, schedule="constant", crop_padding=0, flip=False)
    cells = [Training("digitnet", "compact", sys.argv[1], recipe, seed) for seed in (0, 1, 2)]
    run_cells(cells, Path(sys.argv[2]), jobs=2, progress=False)
"""


def figures(history):
    return [replace(row, seconds=0, seconds_per_step=0) for row in history.rows]


def test_finished_cells_are_not_trained_again(tiny_run, tmp_path, monkeypatch):
    cells = [tiny_run(seed=0), tiny_run(seed=1)]
    first = run_cells(cells[:1], tmp_path, progress=False)
    trained = []
    run = runner.run

    def spy(cell, *args, **options):
        trained.append(cell)
        return run(cell, *args, **options)

    monkeypatch.setattr(runner, "run", spy)
    both = run_cells([*cells, cells[0]], tmp_path, progress=False)
    assert trained == cells[1:]
    assert list(both) == cells
    assert both[cells[0]] == first[cells[0]]
    assert both[cells[1]] == finished(tmp_path / cells[1].folder)


def test_workers_train_what_this_process_trains(tiny_run, tmp_path):
    bad, good, expanded = tiny_run(lr=1e30), tiny_run(), tiny_run("cl,rate=2", seed=1)
    student = tiny_run(teacher=bad, distillation=Distillation())
    caught = []
    for jobs in (1, 2):
        with pytest.raises(CellsFailed) as error:
            run_cells(
                [bad, good, student, expanded], tmp_path / str(jobs), jobs=jobs, progress=jobs > 1
            )
        caught.append(error.value)
    for error in caught:
        assert set(error.failed) == {bad, student}
        assert set(error.finished) == {good, expanded}
        message = str(error)
        assert "2 of 4 cells failed" in message
        assert f"{bad.folder}: NonFiniteLoss: the loss is" in message
        assert f"{student.folder}: RuntimeError: its {bad.folder} failed" in message
    for cell in (good, expanded):
        pairs = zip(*(figures(error.finished[cell]) for error in caught), strict=True)
        for here, there in pairs:
            assert there.train_loss == pytest.approx(here.train_loss, rel=1e-3)
            assert there.test_accuracy == pytest.approx(here.test_accuracy, abs=0.03)


def test_a_teacher_is_trained_once_before_its_students(tiny_run, tmp_path, monkeypatch):
    teacher = tiny_run("cl,rate=2", epochs=3)
    students = [tiny_run(seed=s, teacher=teacher, distillation=Distillation()) for s in (0, 1)]
    order, run = [], runner.run
    monkeypatch.setattr(
        runner, "run", lambda cell, *a, **o: order.append(cell) or run(cell, *a, **o)
    )
    histories = run_cells(students, tmp_path, progress=False)
    assert order == [teacher, *students]
    assert list(histories) == students
    assert finished(tmp_path / teacher.folder) is not None


def test_ctrl_c_stops_the_workers(stripes, tmp_path):
    script, runs = tmp_path / "script.py", tmp_path / "runs"
    script.write_text(STOPPED)
    process = subprocess.Popen(
        [sys.executable, str(script), stripes, str(runs)], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(runs.glob("*/last.pt"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    written = {path: path.stat().st_mtime_ns for path in runs.glob("*/last.pt")}
    time.sleep(0.5)
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/last.pt")} == written


def test_jobs_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match=r"jobs=0: give the number of processes, at least 1"):
        run_cells([], tmp_path, jobs=0)
    assert run_cells([], Path(os.devnull)) == {}
