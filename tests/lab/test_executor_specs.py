"""Specs of executors, and what each of them is made of."""

import gc
import importlib.util
import io
import os
import socket
import sys
import tarfile

import pytest

from weightfold.cli import main
from weightfold.lab.executors.board import FileBoard, telling_of
from weightfold.lab.executors.registry import opened
from weightfold.lab.executors.work import pack, unpack
from weightfold.lab.runner import run_cells
from weightfold.train.progress import Progress


def test_processes_are_dealt_the_gpus_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    with opened("local", tmp_path, jobs=3) as executor:
        seen = [executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() for _ in range(3)]
    assert seen == ["5", "3", "5"]


def case(spec, error, *parts):
    """A spec that raises, with parts of the message; skipped without the package it needs."""
    module = {"slurm": "submitit", "ray": "ray"}.get(spec.partition(",")[0])
    missing = module is not None and importlib.util.find_spec(module) is None
    return pytest.param(
        spec, error, parts, marks=pytest.mark.skipif(missing, reason=f"{module} is not installed")
    )


@pytest.mark.parametrize(
    ("spec", "error", "parts"),
    [
        case("slrum", ValueError, "on='slrum'", "'slurm'", "local, ray, slurm"),
        case("local,gpus=2", ValueError, "'gpus'", "none"),
        case("slurm,partitions=gpu", ValueError, "'partitions'", "'partition'"),
        case("slurm,cluster=debug,time=soon", ValueError, "time='soon'", "int"),
        case("slurm,cluster=debug,time=0", ValueError, "time=0", "at least 1"),
        case("slurm,cluster=nowhere", ValueError, "cluster='nowhere'", "slurm, local, debug"),
        case("slurm", ConnectionError, "on='slurm'", "sinfo is not found"),
        case("ray,num_cpus=0", ValueError, "num_cpus=0", "at least 1"),
        case("ray,num_gpus=-1", ValueError, "num_gpus=-1", "at least 0"),
        case("ray,address=127.0.0.1:{free}", ConnectionError, "address='127.0.0.1:", "refused"),
        case("ray,address=ray://127.0.0.1:{free}", ConnectionError, "address='ray://", "refused"),
        case("ray,address=nonsense", ConnectionError, "address='nonsense'"),
    ],
)
def test_what_cannot_be_reached_is_said_before_any_work(
    spec, error, parts, steps, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm there
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    root = tmp_path / "runs"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nothing listens there
        spec = spec.format(free=free.getsockname()[1])
        with pytest.raises(error) as caught:
            run_cells([steps("a")], root, on=spec, progress=False)
    for part in parts:
        assert part in str(caught.value)
    assert not root.exists()


@pytest.mark.parametrize(("on", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_named_with_its_extra(on, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*weightfold\[{on}\]"), opened(on, tmp_path):
        pass


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--model", "digitnet", "--data", "digits"],
        ["experiment", "run", "guo2020-table1"],
    ],
)
def test_commands_say_it_before_any_work(command, tmp_path, capsys):
    assert main([*command, "--folder", str(tmp_path / "out"), "--on", "slrum"]) == 2
    assert "on='slrum'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.*_log:pytest.PytestUnraisableExceptionWarning")
def test_a_comparison_is_trained_where_it_is_told(stripes, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    out = tmp_path / "out"
    command = ["compare", "--model", "digitnet", "--data", stripes, "--folder", str(out)]
    more = ["--variants", "compact", "cl,rate=2", "--seeds", "2", "--epochs", "1"]
    assert main([*command, *more, "--on", "slurm,cluster=debug"]) == 0
    assert len([*(out / "runs" / ".running" / "submitit").glob("DEBUG_*.out")]) == 4
    assert (out / "index.html").exists()
    gc.collect()  # the log files that submitit leaves open


def test_ray_is_not_asked_for_another_cluster_than_it_is_connected_to(tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    with opened("ray", tmp_path) as executor:
        assert executor.jobs == 256 and executor.threads == 1
        with (
            pytest.raises(ConnectionError, match=r"address='10\.0\.0\.1:6379'"),
            opened("ray,address=10.0.0.1:6379", tmp_path),
        ):
            pass
    assert not ray.is_initialized()


def test_a_board_tells_the_last_of_each_run_until_it_is_forgotten(tmp_path):
    board = FileBoard(tmp_path / "new")
    assert board.read() == {}
    for now in (1, 2):
        board.tell("a_0.5", Progress(now, 9, "so far"))
    board.tell("b", Progress(0, 0))
    assert board.read() == {"a_0.5": Progress(2, 9, "so far"), "b": Progress(0, 0)}
    board.forget("b")
    board.forget("never told of")
    assert [*board.read()] == ["a_0.5"]


def test_a_board_is_told_at_most_twice_a_second(tmp_path):
    board, now = FileBoard(tmp_path), 0.0
    tell = telling_of("a", board, clock=lambda: now)
    seen = []
    for step in range(9):
        now = step / 8
        tell(Progress(step, 9))
        seen.append(board.read()["a"].completed)
    assert seen == [0, 0, 0, 0, 4, 4, 4, 4, 8]


def test_folders_are_packed_and_nothing_is_unpacked_outside(tmp_path):
    (tmp_path / "here" / "run" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "run" / "deep" / "file").write_bytes(b"\0\1")
    unpack(pack(tmp_path / "here", ["run", "missing"]), tmp_path / "there")
    assert (tmp_path / "there" / "run" / "deep" / "file").read_bytes() == b"\0\1"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(tarfile.FilterError):
        unpack(archive.getvalue(), tmp_path / "there")
    assert not (tmp_path / "outside").exists()
