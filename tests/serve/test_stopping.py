"""SIGTERM: the process ends with 0, and what it took is answered."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

import weightfold as wf

PROGRAM = """
from weightfold.serve.starting import starting

with starting():
    print("begun", flush=True)
    import runpy, sys
    from weightfold.serve.server import serve
    print("imported", flush=True)
    engine = runpy.run_path(sys.argv[1])["FakeEngine"]()
    predict = engine.predict
    engine.predict = lambda *given: (sys.stdin.read(), predict(*given))[1]  # waits for its end
    print("made", flush=True)
    serve(engine, port=0)
print("stopped", flush=True)
"""


@contextmanager
def process(*command):
    """A Python program with its output; it is killed if it does not end by itself."""
    pipe = subprocess.PIPE
    command = [sys.executable, *command]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as run:
        try:
            yield run
        finally:
            run.kill()


def fake():
    return process("-c", PROGRAM, str(Path(__file__).with_name("conftest.py")))


def until(stream, pattern):
    lines = []
    while not (found := re.search(pattern, line := stream.readline())):
        lines.append(line)
        assert line, "".join(lines)
    return found


def address(run):
    return until(run.stderr, r"running on (http://127.0.0.1:\d+) ")[1]


def end(run):
    """Exit code after SIGTERM, with what was written."""
    run.send_signal(signal.SIGTERM)
    _, log = run.communicate(timeout=60)
    assert "Traceback" not in log, log
    return run.returncode


@pytest.mark.parametrize("moment", ["begun", "imported"])
def test_while_it_starts(moment):
    with fake() as run:
        until(run.stdout, moment)
        assert end(run) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15])
def test_just_before_and_after_it_listens(seconds):
    with fake() as run:
        until(run.stdout, "made")
        time.sleep(seconds)
        assert end(run) == 0


def test_idle_with_connections_that_send_nothing(picture):
    with fake() as run:
        url = address(run)
        port = int(url.rpartition(":")[2])
        with (
            httpx.Client() as client,
            socket.create_connection(("127.0.0.1", port)),
            socket.create_connection(("127.0.0.1", port)) as half,
        ):
            half.sendall(b"POST /v1/dom")
            assert client.get(f"{url}/healthz").status_code == 200
            assert end(run) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_with_requests_in_flight(picture, seconds):
    """Twelve wait while one is computed, which ends so long after the signal."""
    statuses = []

    def ask(url):
        with httpx.Client() as client:
            answer = client.post(f"{url}/v1/domains/birds/predict", content=picture(), timeout=60)
            statuses.append((answer.status_code, len(answer.json()["predictions"])))

    with fake() as run:
        url = address(run)
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        while "weightfold_requests_under_way 12.0" not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.001)
        run.send_signal(signal.SIGTERM)
        time.sleep(seconds)
        _, log = run.communicate(timeout=60)
        for thread in threads:
            thread.join()
    assert run.returncode == 0 and "Traceback" not in log
    assert statuses == [(200, 3)] * 12


def test_a_request_that_arrived_but_was_not_yet_read(picture):
    """It is sent on a connection that is open already, and the signal follows at once."""
    body = picture()
    head = f"POST /v1/domains/cars/predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    with fake() as run:
        port = int(address(run).rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as opened:
            opened.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            received = b""
            while not received.endswith(b'{"status":"ok"}'):
                received += opened.recv(2**16)
            opened.sendall(head.encode() + b"\r\n" + body)
            run.send_signal(signal.SIGTERM)
            run.stdin.close()
            answer = b""
            while part := opened.recv(2**16):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200") and b'"predictions"' in answer
        assert run.wait(60) == 0


def test_twice(picture):
    with fake() as run:
        address(run)
        run.send_signal(signal.SIGTERM)
        assert end(run) == 0


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    from weightfold.nets import build

    model = build("smallnet_b,kernel_size=3", num_classes=3, in_channels=3)
    plan = wf.plan_sharing(model, "bottom", 0.5, example_input=torch.zeros(1, 3, 32, 32))
    net = wf.share(model, {"a": 3, "b": 2}, plan)
    assert isinstance(net, nn.Module)
    for name in net.domains:
        net.about[name] = {"image_shape": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}
    wf.save(net, tmp_path / "bundle")
    return tmp_path / "bundle"


COMMAND = "import sys; from weightfold.cli import main; print('on', flush=True); sys.exit(main())"


def test_the_command(bundle, picture):
    options = ["--port", "0", "--model", "smallnet_b,kernel_size=3"]
    with process("-c", COMMAND, "domains", "serve", str(bundle), *options) as run:
        url = address(run)
        answer = httpx.post(f"{url}/v1/domains/b/predict", content=picture(), timeout=60)
        assert len(answer.json()["predictions"]) == 2
        assert end(run) == 0


@pytest.mark.parametrize("seconds", [0.5])
def test_the_command_while_it_starts(bundle, seconds):
    options = ["--port", "0", "--model", "smallnet_b,kernel_size=3"]
    with process("-c", COMMAND, "domains", "serve", str(bundle), *options) as run:
        until(run.stdout, "on")
        time.sleep(seconds)  # of the seconds that torch takes; the command's own start is over
        assert end(run) == 0


def test_the_command_refuses_a_cap_that_holds_no_domain(bundle):
    options = ["--port", "0", "--model", "smallnet_b,kernel_size=3", "--memory", "1000"]
    with process("-c", COMMAND, "domains", "serve", str(bundle), *options) as run:
        _, log = run.communicate(timeout=60)
    assert run.returncode == 2 and "max_bytes=1,000 (--memory)" in log and "Traceback" not in log
