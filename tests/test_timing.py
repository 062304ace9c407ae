import time

import pytest
import torch

from weightfold.timing import alternate, latency


def test_percentiles_of_known_durations_without_the_warmup(monkeypatch):
    # Calls last 900 (warm-up), 1, 2, ..., 11 seconds.
    durations = [900, *range(1, 12)]
    clock = iter([t for d in durations for t in (100.0, 100.0 + d)])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    measured = latency(lambda: None, warmup=1, repeats=11)
    assert (measured.median_ms, measured.p10_ms, measured.p90_ms) == (6000, 2000, 10000)
    assert measured.repeats == 11
    assert measured.threads == torch.get_num_threads()


def test_functions_take_turns():
    calls = []
    measured = alternate(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, warmup=1, repeats=2
    )
    assert calls == ["a", "b"] * 3
    assert list(measured) == ["a", "b"]


@pytest.mark.parametrize(("warmup", "repeats"), [(-1, 5), (0, 0)])
def test_bad_counts(warmup, repeats):
    with pytest.raises(ValueError, match=f"warmup={warmup}, repeats={repeats}"):
        latency(lambda: None, warmup=warmup, repeats=repeats)
