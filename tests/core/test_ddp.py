"""DistributedDataParallel over gloo: 2 processes are 1 process, constants stay at home."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from weightfold.methods import catalogue


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What the two ranks saved, per kind; one pair of processes for all tests of this file."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, str(Path(__file__).with_name("ddp_worker.py"))]
    workers = [
        subprocess.Popen(
            [*command, str(rank), "2", str(folder / "meeting"), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for worker in workers:
            output, _ = worker.communicate(timeout=120)
            assert worker.returncode == 0, output
    finally:
        for worker in workers:
            worker.kill()
    return [
        {k: torch.load(folder / f"{k}.{rank}.pt", weights_only=True) for k in catalogue()}
        for rank in range(2)
    ]


def test_two_processes_are_one(cases, case, ranks):
    net = case.net.eval()
    x = torch.cat([case.x, 2 * case.x, case.x.flip(0), -case.x])
    start = {n: t.clone() for n, t in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for step in range(5):
        optimizer.zero_grad()
        case.run(x=x + 0.1 * step).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    end = net.state_dict()
    assert cases.gap(end, start) > 1e-3
    for rank in ranks:
        assert cases.gap(rank[case.kind]["state"], end) <= 1e-10


def test_constants_are_not_broadcast(case, ranks):
    received = ranks[1][case.kind]["received"]
    constants = {f"charts.0.{n}" for n, _ in case.chart.named_buffers()
                 if n.rpartition(".")[2] in case.chart.constants}  # fmt: skip
    assert set(case.net._ddp_params_and_buffers_to_ignore) == constants
    assert not any(received[n] for n in constants)
    assert all(flag for n, flag in received.items() if n not in constants)
    known = {"expansion": 0, "mask": 2, "matrix": 0, "sharing": 0, "subspace": 5, "live": 1}
    assert len(constants) == known.get(case.kind, len(constants))
