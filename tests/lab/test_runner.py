import os
from dataclasses import replace
from pathlib import Path

import pytest

from weightfold.lab.runner import CellsFailed, run_cells
from weightfold.train import Distillation
from weightfold.train.checkpoint import finished


def figures(history):
    return [replace(row, seconds=0, seconds_per_step=0) for row in history.rows]


def test_finished_cells_are_not_trained_again(tiny_run, tmp_path):
    cells = [tiny_run(seed=0), tiny_run(seed=1)]
    first = run_cells(cells[:1], tmp_path, progress=False)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / cells[0].folder).iterdir()}
    both = run_cells([*cells, cells[0]], tmp_path, progress=False)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert list(both) == cells
    assert both[cells[0]] == first[cells[0]]
    assert both[cells[1]] == finished(tmp_path / cells[1].folder)


def test_workers_train_what_this_process_trains(tiny_run, tmp_path):
    bad, good, expanded = tiny_run(lr=1e30), tiny_run(), tiny_run("cl,rate=2", seed=1)
    student = tiny_run(teacher=bad, distillation=Distillation())
    caught = []
    for jobs in (1, 2):
        cells, root = [bad, good, student, expanded], tmp_path / str(jobs)
        with pytest.raises(CellsFailed) as error:
            run_cells(cells, root, jobs=jobs, progress=jobs > 1)
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
            assert there["train_loss"] == pytest.approx(here["train_loss"], rel=1e-3)
            assert there["test_accuracy"] == pytest.approx(here["test_accuracy"], abs=0.03)


def test_a_teacher_is_trained_before_its_students(tiny_run, tmp_path):
    teacher = tiny_run("cl,rate=2", epochs=3)
    students = [tiny_run(seed=s, teacher=teacher, distillation=Distillation()) for s in (0, 1)]
    histories = run_cells(students, tmp_path, progress=False)
    assert list(histories) == students
    assert len(finished(tmp_path / teacher.folder).rows) == 3


def test_jobs_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match=r"jobs=0.*at least 1"):
        run_cells([], tmp_path, jobs=0)
    assert run_cells([], Path(os.devnull)) == {}
