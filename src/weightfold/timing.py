"""Latency, and how latencies compare when measured in turn."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Latency:
    """How long a call takes.

    Attributes:
        median_ms: Median over the repeats, milliseconds.
        p10_ms: 10th percentile.
        p90_ms: 90th percentile.
        repeats: Timed calls.
        threads: torch's threads meanwhile, which the runners of this package use too.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    threads: int


def latency(run: Callable[[], object], *, warmup: int = 10, repeats: int = 50) -> Latency:
    """Time calls of `run`, after `warmup` untimed ones.

    Args:
        run: Called without arguments, e.g. `partial(onnx_runner(path), images)`.
        warmup: Untimed calls first.
        repeats: Timed calls.

    Raises:
        ValueError: `warmup` is negative or `repeats` is not positive.
    """
    return alternate({"run": run}, warmup=warmup, repeats=repeats)["run"]


def alternate(
    runs: Mapping[str, Callable[[], object]], *, warmup: int = 10, repeats: int = 50
) -> dict[str, Latency]:
    """Time several functions in turn, one call of each per round.

    A machine that slows down meanwhile slows all of them, so that ratios of the medians hold.

    Args:
        runs: The functions, by name.
        warmup: Untimed rounds first.
        repeats: Timed rounds.

    Raises:
        ValueError: `warmup` is negative or `repeats` is not positive.
    """
    if warmup < 0 or repeats < 1:
        raise ValueError(f"warmup={warmup}, repeats={repeats}; use warmup >= 0 and repeats >= 1")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(warmup + repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            duration = time.perf_counter() - begin
            if index >= warmup:
                seconds[name].append(duration)
    return {name: _summary(durations) for name, durations in seconds.items()}


def _summary(durations: list[float]) -> Latency:
    levels = torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64)
    milliseconds = 1000 * torch.tensor(durations, dtype=torch.float64)
    median, p10, p90 = torch.quantile(milliseconds, levels).tolist()
    return Latency(median, p10, p90, len(durations), torch.get_num_threads())
