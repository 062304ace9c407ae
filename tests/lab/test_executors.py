"""Laws over all executors, and what each of them does in its own way."""

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from weightfold.files import locked
from weightfold.lab import runner
from weightfold.lab.executors import slurm
from weightfold.lab.executors.registry import opened
from weightfold.lab.executors.work import claimed
from weightfold.lab.runner import RETRIES, CellsFailed, run_cells

NEEDS = {"slurm": "submitit", "ray": "ray"}


def where(on, jobs=2, name=None):
    needed = NEEDS.get(on.partition(",")[0])
    missing = needed is not None and importlib.util.find_spec(needed) is None
    marks = [pytest.mark.skipif(missing, reason=f"{needed} is not installed")]
    if "debug" in on:  # whose log files submitit leaves to the garbage collector
        marks.append(
            pytest.mark.filterwarnings("ignore:.*_log:pytest.PytestUnraisableExceptionWarning")
        )
    return pytest.param(on, jobs, marks=marks, id=name or on)


PROCESSES = where("local", name="processes")
JOBS = where("slurm,cluster=local,time=2")
RAY, RAY_SHARED = where("ray"), where("ray,shared=true")
ALL = [where("local", 1, "this process"), PROCESSES, JOBS, where("slurm,cluster=debug"), RAY]
DYING = [PROCESSES, JOBS, RAY, RAY_SHARED]


@pytest.fixture(scope="module")
def a_ray(steps_module):
    """A Ray of two workers on this machine."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def reached(request):
    """What a test's executor needs is there."""
    if "on" in request.fixturenames and request.getfixturevalue("on").startswith("ray"):
        request.getfixturevalue("a_ray")
    yield
    gc.collect()


@pytest.mark.parametrize(("on", "jobs"), ALL)
def test_each_cell_is_run_once_after_what_it_needs(on, jobs, steps, logged, tmp_path):
    teacher = steps("teacher", steps=2)
    wrong = steps("wrong", wrong=True)
    good = [steps("student", before=teacher), steps("other")]
    cells = [*good, wrong, steps("orphan", before=wrong), good[0]]
    root = tmp_path / "runs"
    with pytest.raises(CellsFailed) as error:
        run_cells(cells, root, on=on, jobs=jobs, progress=False)
    assert set(error.value.failed) == {wrong, cells[3]}
    assert type(error.value.failed[wrong]) is ArithmeticError
    assert str(error.value.failed[wrong]) == "wrong is wrong"
    assert "its wrong failed" in str(error.value.failed[cells[3]])
    log = logged()
    starts = [line for line in log if line.endswith(": start")]
    assert sorted(starts) == [f"{n}: start" for n in ("other", "student", "teacher", "wrong")]
    assert log.index("teacher: step 2") < log.index("student: start")
    again = run_cells(good, root, on=on, jobs=jobs, progress=False)
    assert again == {cell: error.value.finished[cell] for cell in good}
    assert again[good[0]] == {"step": 3, "taught": 2} == good[0].finished(root)
    assert logged() == log
    assert {path.name for path in root.iterdir()} - {".running"} >= {"teacher", "student", "other"}


@pytest.mark.parametrize(("on", "jobs"), DYING)
def test_a_worker_that_dies_costs_its_run_alone(on, jobs, steps, logged, tmp_path):
    dying, other = steps("dying", deaths=(2,)), steps("other", steps=30, seconds=0.1)
    found = run_cells([dying, other], tmp_path / "runs", on=on, jobs=jobs, progress=False)
    assert found[dying]["step"] == 3 and found[other]["step"] == 30
    log = logged()
    assert log.count("other: start") == 1
    assert log.count("dying: start") == 2
    assert log.count("dying: step 1") == (2 if on == "ray" else 1)  # else on from its folder


def test_one_that_comes_no_further_is_given_up(steps, logged, tmp_path):
    dying, other = steps("dying", deaths=(2,) * 10), steps("other")
    with pytest.raises(CellsFailed, match="dying: WorkerDied") as error:
        run_cells([dying, other], tmp_path / "runs", jobs=2, progress=False)
    assert list(error.value.failed) == [dying] and list(error.value.finished) == [other]
    assert logged().count("dying: start") == 1 + RETRIES


def test_one_that_comes_further_goes_on(steps, logged, tmp_path):
    every = tuple(range(1, RETRIES + 2))
    dying = steps("dying", steps=len(every), seconds=0.6, deaths=every)  # told of each step
    found = run_cells([dying], tmp_path / "runs", jobs=2, progress=False)
    assert found[dying]["step"] == len(every) == logged().count("dying: start") - 1


STOPPED = """
import sys
from functools import partial
from pathlib import Path
from steps_cells import Steps
from weightfold.lab.runner import run_cells
if __name__ == "__main__":
    make = partial(Steps, log=sys.argv[1], steps=1000, seconds=0.1)
    cells = [Steps("done", sys.argv[1], steps=1), *(make(name) for name in ("a", "b", "c", "d"))]
    run_cells(cells, Path(sys.argv[2]), on=sys.argv[3], jobs=int(sys.argv[4]), progress=False)
"""


@pytest.mark.parametrize(("how", "jobs"), [PROCESSES, JOBS, where("ray,num_cpus=1", 4)])
def test_ctrl_c_leaves_what_is_done_and_cancels_the_rest(how, jobs, steps, logged, tmp_path):
    script, runs = tmp_path / "script.py", tmp_path / "runs"
    script.write_text(STOPPED)
    arguments = [sys.executable, script, tmp_path / "log", runs, how, str(jobs)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while not {"a: step 3", "b: step 3"} <= {*logged()} or not (runs / "done").exists():
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    log = logged()
    time.sleep(1)
    assert logged() == log
    assert len([line for line in log if line.endswith("start")]) == 3
    assert steps("done", steps=1).finished(runs) == {"step": 1, "taught": None}


def test_two_sweeps_at_once_make_each_run_once(steps, logged, tmp_path):
    cells = [steps(name, steps=10, seconds=0.1) for name in ("a", "b", "c")]
    found = []

    def sweep():
        found.append(run_cells(cells, tmp_path / "runs", progress=False))

    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] and list(found[0]) == cells
    assert sorted(line for line in logged() if "start" in line) == [f"{n}: start" for n in "abc"]


@pytest.mark.parametrize(("on", "jobs"), [PROCESSES, RAY])
def test_a_run_that_another_process_makes_is_waited_for(
    on, jobs, steps, logged, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner, "BUSY_SECONDS", 0.1)
    cells, root = [steps("held"), steps("free")], tmp_path / "runs"
    with claimed(cells[0], root):
        found = []
        thread = threading.Thread(
            target=lambda: found.append(run_cells(cells, root, on=on, jobs=jobs, progress=False))
        )
        thread.start()
        deadline = time.monotonic() + 60
        while cells[1].finished(root) is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        assert thread.is_alive() and "held: start" not in logged()
    thread.join()
    assert [*found[0]] == cells and logged().count("held: start") == 1


def test_a_training_that_is_no_runs_is_waited_for_too(tiny_run, tmp_path, monkeypatch, capsys):
    """As by `weightfold train --folder`, which holds the run's own folder."""
    monkeypatch.setattr(runner, "BUSY_SECONDS", 0.1)
    held, free = tiny_run(seed=0), tiny_run(seed=1)
    found: list[dict] = []
    with locked(tmp_path / held.folder):
        thread = threading.Thread(target=lambda: found.append(run_cells([held, free], tmp_path)))
        thread.start()
        deadline = time.monotonic() + 60
        while free.finished(tmp_path) is None:
            assert time.monotonic() < deadline and thread.is_alive()
            time.sleep(0.1)
    thread.join()
    assert [*found[0]] == [held, free]
    said = "".join(capsys.readouterr().out.split())  # of which the terminal breaks lines
    assert said.count(f"waitsforanotherprocess:{held.folder}") == 1


STANDIN = {
    "sinfo": "echo cpu; echo gpu",
    "sbatch": """cp "$1" "$JOBS/$$.script"
        export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0
        export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=here
        setsid sh "$1" > /dev/null 2>&1 & echo $! > "$JOBS/$$.job"
        echo "Submitted batch job $$"
        """,
    "srun": """while true; do case "$1" in
        --output|--error) shift 2;; --*) shift;; *) exec "$@";; esac; done""",
    "squeue": """for job in "$JOBS"/*.job; do
        kill -0 "$(cat "$job")" 2> /dev/null && basename "$job" .job; done; true""",
    "scancel": 'kill -9 "-$(cat "$JOBS/$1.job")"',
}


@pytest.fixture
def stand_in(tmp_path, monkeypatch, steps_module):
    """Commands that do as Slurm's do, on this machine; the folder of the jobs' scripts."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed")
    for folder in ("bin", "jobs"):
        (tmp_path / folder).mkdir()
    for name, text in STANDIN.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("JOBS", str(tmp_path / "jobs"))
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.5)
    return tmp_path / "jobs"


def test_jobs_of_slurm_have_their_options_and_start_again(stand_in, steps, logged, tmp_path):
    cells = [steps("dying", deaths=(2,)), steps("other")]
    on = "slurm,partition=gpu,gpus_per_node=1,time=7,mem_gb=2"
    found = run_cells(cells, tmp_path / "runs", on=on, progress=False)
    assert [record["step"] for record in found.values()] == [3, 3]
    assert logged().count("dying: start") == 2 and logged().count("dying: step 1") == 1
    scripts = [path.read_text() for path in stand_in.glob("*.script")]
    assert len(scripts) == 3
    for option in ("partition=gpu", "gpus-per-node=1", "time=7", "mem=2GB", "no-requeue"):
        assert all(f"#SBATCH --{option}\n" in script for script in scripts)


def test_jobs_of_slurm_are_cancelled(stand_in, tmp_path):
    with opened("slurm", tmp_path / "runs") as executor:
        future = executor.submit(time.sleep, 1000)
        assert subprocess.run(["squeue"], capture_output=True, check=True).stdout
    assert future.cancelled()
    deadline = time.monotonic() + 30
    while subprocess.run(["squeue"], capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(("on", "jobs"), [JOBS])
def test_a_warning_before_the_end_of_a_job_is_not_its_end(on, jobs, tmp_path):
    with opened(on, tmp_path / "runs", jobs=jobs) as executor:
        future = executor.submit(signal.raise_signal, signal.SIGUSR2)
        assert future.result(timeout=120) is None


def test_a_partition_that_is_not_there_is_said(stand_in, tmp_path):
    with (
        pytest.raises(ValueError, match=r"partition='gpux'.*cpu, gpu"),
        opened("slurm,partition=gpux", tmp_path),
    ):
        pass
