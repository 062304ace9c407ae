import json
import multiprocessing
import os
import resource
import secrets
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.export import to_exported_program, to_onnx
from weightfold.files import (
    LOCK,
    FolderLockedError,
    explained,
    foreign,
    locked,
    replacing,
    settled,
    temporary_folder,
    write_bytes,
    write_csv,
    write_json,
)
from weightfold.report.figures import drawing
from weightfold.train.checkpoint import save_state, save_weights

FORK = multiprocessing.get_context("fork")
DEAD = 2**22 + 1  # above every process number of Linux
HOST = "".join(c for c in socket.gethostname() if c.isascii() and c.isalnum())[:24]


def in_a_process(call):
    """What `call()` returns in a process of its own, or the exception it raises there."""
    ours, theirs = FORK.Pipe(duplex=False)

    def run():
        torch.set_num_threads(1)
        try:
            theirs.send(call())
        except Exception as error:
            theirs.send((type(error).__mro__[-4].__name__, getattr(error, "errno", 0), str(error)))

    process = FORK.Process(target=run)
    process.start()
    found = ours.recv() if ours.poll(600) else None
    process.join()
    return found


def named(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_link_planted_under_a_temporary_name_is_not_written_through(tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    path = tmp_path / "out" / "a.json"
    path.parent.mkdir()
    (path.parent / f".a.json.{os.getpid()}.tmp").symlink_to(canary)
    write_json(path, {"a": 1})
    assert canary.read_text() == "alive" and json.loads(path.read_text()) == {"a": 1}

    monkeypatch.setattr(secrets, "token_hex", lambda _: "foreseen")
    planted = path.parent / f".a.json.{HOST}-{os.getpid()}-foreseen.tmp"
    planted.symlink_to(canary)
    with pytest.raises(FileExistsError, match=r"a\.json"):
        write_json(path, {"a": 2})
    assert canary.read_text() == "alive" and json.loads(path.read_text()) == {"a": 1}


def test_a_link_in_place_of_a_file_is_replaced(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "a.csv"
    canary.write_text("alive")
    path.symlink_to(canary)
    write_csv(path, [{"a": 1}])
    assert canary.read_text() == "alive" and not path.is_symlink()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path / "a.json") as temporary:
        (temporary / "half").touch()
        raise ZeroDivisionError
    assert named(tmp_path) == {"a.json"}
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path):
    def killed():
        with replacing(tmp_path / "a.json"), temporary_folder(tmp_path / "a.json") as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(named(tmp_path)) == 2
    write_json(tmp_path / "b.json", {})
    assert len(named(tmp_path)) == 3, "of another file, whose writer may be at work"
    write_json(tmp_path / "a.json", {})
    assert named(tmp_path) == {"a.json", "b.json"}


def test_the_writer_that_has_the_lock_sweeps_all_that_is_stale(tmp_path):
    stale = {
        f".a.json.{HOST}-{DEAD}-0123456789abcdef.tmp",
        f".b.{HOST}-{DEAD}-k_3x9a2z.tmp",
        ".c.json.elsewhere-1-0123456789abcdef.tmp",
        f".d.safetensors.{DEAD}.tmp",
    }
    kept = {
        f".a.json.{HOST}-{os.getppid()}-0123456789abcdef.tmp",
        f".d.safetensors.{os.getppid()}.tmp",
        ".notes.tmp",
        "a.tmp",
    }
    for name in stale | kept:
        (tmp_path / name).touch()
    assert {file.name for file in foreign(tmp_path)} == {".notes.tmp", "a.tmp"}
    with locked(tmp_path):
        assert named(tmp_path) == kept | {LOCK}
        assert {file.name for file in foreign(tmp_path)} == {".notes.tmp", "a.tmp"}
    assert named(tmp_path) == kept


def test_a_second_writer_is_refused_at_once_or_after_a_while(tmp_path):
    def second(wait=0.0):
        with locked(tmp_path, wait):
            return "inside"

    with locked(tmp_path):
        for wait in (0.0, 0.2):
            kind, _, message = in_a_process(lambda wait=wait: second(wait))
            assert kind == "OSError" and f"folder={str(tmp_path)!r}" in message
        with pytest.raises(FolderLockedError):
            second()
        with ThreadPoolExecutor() as threads, pytest.raises(FolderLockedError):
            threads.submit(second).result()
    assert second() == "inside" and in_a_process(second) == "inside"


def test_a_writer_waits_for_another_one(tmp_path):
    order = FORK.SimpleQueue()

    def first():
        with locked(tmp_path):
            order.put("inside")
            time.sleep(0.5)
            order.put("left")

    process = FORK.Process(target=first)
    process.start()
    assert order.get() == "inside"
    with locked(tmp_path, 60):
        assert order.get() == "left"
    process.join()


def test_a_killed_writer_holds_no_lock(tmp_path):
    def killed():
        with locked(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=killed)
    process.start()
    process.join()
    assert named(tmp_path) == {LOCK} and not foreign(tmp_path)
    with locked(tmp_path):
        pass
    assert named(tmp_path) == set()


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert named(tmp_path / "a") == set()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "found").touch()
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "found").unlink()
        raise ZeroDivisionError
    assert named(tmp_path / "a") == {"b"}, "it was there before"


def test_only_one_of_many_is_inside(tmp_path):
    """Processes that come and go, while the lock's file is removed and made."""

    def work():
        for _ in range(30):
            with locked(tmp_path / "folder", -1):
                (tmp_path / "inside").touch(exist_ok=False)
                (tmp_path / "inside").unlink()

    processes = [FORK.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert not list((tmp_path / "folder").iterdir())


def test_a_reader_begins_again_only_where_the_file_was_replaced(tmp_path):
    path, calls = tmp_path / "index.json", []
    write_json(path, {"n": 0})

    def read():
        calls.append(1)
        if len(calls) == 1:
            write_json(path, {"n": 0})  # the same content, another file
        if len(calls) < 3:
            raise FileNotFoundError("it names a file that is gone")
        return json.loads(path.read_text())["n"]

    with pytest.raises(FileNotFoundError, match="it names"):
        settled(path, read)
    assert len(calls) == 2
    assert settled(path, read) == 0


def test_errors_that_name_another_file_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError) as error, replacing(tmp_path / "a") as temporary:
        temporary.write_bytes((tmp_path / "source").read_bytes())
    assert error.value.filename == str(tmp_path / "source")
    with pytest.raises(ValueError, match="by hand"), explained(tmp_path, "writing"):
        raise ValueError("by hand")
    with pytest.raises(FileNotFoundError) as error:
        write_json(tmp_path / "missing" / "a.json", {})
    assert error.value.filename == str(tmp_path / "missing" / "a.json")


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 64, 9), nn.ReLU(), nn.Flatten(), nn.Linear(64, 300)).eval()


def figure(path: Path) -> None:
    with drawing(path, figsize=(8, 8)) as (_, axis):
        axis.imshow(torch.rand(500, 500, generator=torch.Generator().manual_seed(0)))


WRITERS = {
    "net": lambda folder: wf.save(net(), folder),
    "state.pt": lambda path: save_state(path, net().state_dict()),
    "weights.safetensors": lambda path: save_weights(net(), path),
    "records.json": lambda path: write_json(path, {"text": "x" * 30_000}),
    "rows.csv": lambda path: write_csv(path, [{"text": "x" * 30_000}]),
    "figure.png": figure,
    "model.onnx": lambda path: to_onnx(net(), torch.zeros(1, 1, 9, 9), path),
    "model.pt2": lambda path: to_exported_program(net(), torch.zeros(1, 1, 9, 9), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_be_written_whole_is_named_and_leaves_nothing(name, tmp_path):
    """As on a full disk, by a limit of the size of files; [Errno 28] is [Errno 27] then."""

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        WRITERS[name](tmp_path / "out" / name)

    (tmp_path / "out").mkdir()
    kind, number, message = in_a_process(write)
    assert (kind, number) == ("OSError", 27), message
    assert str(tmp_path / "out" / name) in message and "while writing" in message
    assert not [file for file in (tmp_path / "out").rglob("*") if not file.is_dir()]
    assert named(tmp_path / "out") == set()


def test_a_full_disk_is_told_with_the_file_and_the_bytes(tmp_path, monkeypatch):
    import errno

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"12 bytes.*net\.bin") as found:
        write_bytes(tmp_path / "net.bin", b"twelve bytes")
    assert found.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())
