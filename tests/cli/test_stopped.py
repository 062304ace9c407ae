"""Commands that are stopped by a signal go on when they are given again."""

import json
import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import sys
from weightfold.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
QUICK = ["--epochs", "40", "--batch-size", "20", "--lr", "0.05", "--no-flip", "--crop-padding", "0"]
DATA = ["--model", "digitnet", "--data", "digits,limit=200"]


@pytest.fixture
def command(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    return [sys.executable, str(script)]


def stopped(command, begun, number):
    """Its exit code and what it said, after a signal once `begun()`."""
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        end = time.monotonic() + 120
        while not begun():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training(number, command, tmp_path):
    folder = tmp_path / "run"
    asked = [*command, "train", *DATA, *QUICK, "--folder", str(folder)]
    code, said = stopped(asked, (folder / "last.pt").exists, number)
    assert code == 128 + number
    assert "stopped; the same command goes on" in said
    rows = len(json.loads((folder / "history.json").read_text())["rows"])
    assert 1 <= rows <= 40
    again = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert len(json.loads((folder / "history.json").read_text())["rows"]) == 40
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_workers_end_with_the_command(command, tmp_path):
    """SIGTERM to the command alone: the processes it started are gone when it has ended."""
    folder = tmp_path / "compared"
    asked = [*command, "compare", *DATA, *QUICK, "--epochs", "100000", "--jobs", "2"]
    asked += ["--seeds", "2", "--variants", "compact", "cl,rate=2", "--folder", str(folder)]

    def files():
        return list(folder.glob("runs/*/last.pt"))

    code, said = stopped(asked, lambda: len(files()) == 2, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "stopped; the same command goes on" in said
    written = {path: path.stat().st_mtime_ns for path in files()}
    time.sleep(0.5)
    assert {path: path.stat().st_mtime_ns for path in files()} == written
