"""The signal that ends a server before it serves; no torch is imported here."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Start:
    """A server's start.

    Attributes:
        stopped: Whether SIGTERM has arrived.
    """

    stopped: bool = False


@contextmanager
def starting() -> Iterator[Start]:
    """Inside, SIGTERM ends the process with exit code 0, for nothing was taken on yet.

    Raises:
        SystemExit: It has arrived. Python loses an exception that a handler raises while objects
            are cleaned up: look at `stopped` before going on.
    """
    start = Start()

    def stop(number: int, frame: object) -> None:
        start.stopped = True
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield start
    finally:
        signal.signal(signal.SIGTERM, before)
