import multiprocessing
import signal
import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, settings

# No test depends on the clock: on a busy machine drawing an example can take seconds.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

FORK = multiprocessing.get_context("fork")

# Autograd counts devices when it first runs, and starts no thread of its own if there is none; once
# some library has registered one, it would, and tests could no longer fork.
torch.ones((), requires_grad=True).backward()


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Commands that tests start hear Ctrl-C, also where the tests run in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def at_once(*works: Callable[[], None]) -> None:
    """Run each in a process of its own, all from the same moment on; all must succeed."""
    start = FORK.Barrier(len(works))

    def run(work):
        torch.set_num_threads(1)
        start.wait(600)
        work()

    processes = [FORK.Process(target=run, args=(work,)) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(works)


def reading(ended: threading.Event, read: Callable[[], object], whole: list) -> None:
    """Read until the writers have ended, and once more; everything must be one of `whole`."""
    count = 0
    while not ended.is_set() or not count:
        assert read() in whole
        count += 1
    assert read() in whole


def run_two_writers(
    writers: list[Callable[[], None]], read: Callable[[], object], whole: list
) -> None:
    """Two processes write, a third one reads while they do."""
    left, ended = FORK.Value("i", len(writers)), FORK.Event()

    def writing(write):
        try:
            write()
        finally:
            with left.get_lock():
                left.value -= 1
                if left.value == 0:
                    ended.set()

    at_once(
        lambda: reading(ended, read, whole),
        *(lambda write=write: writing(write) for write in writers),
    )


@pytest.fixture
def two_writers():
    """A function: two processes write, a third one reads while they do, what must be in `whole`."""
    return run_two_writers
