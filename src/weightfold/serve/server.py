"""The service on uvicorn: connections with limits, and an end with exit code 0."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from weightfold.serve.connections import LimitedConnection
from weightfold.serve.http import make_app
from weightfold.serve.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from weightfold.serve.engine import Engine


def make_server(
    engine: "Engine",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = DEFAULT,
    grace_s: int = 30,
) -> uvicorn.Server:
    """A uvicorn server, not yet running; arguments and errors as in `serve`."""
    config = uvicorn.Config(
        make_app(engine, limits),
        host=host,
        port=port,
        http=partial(LimitedConnection, limits=limits),  # type: ignore[arg-type]
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=grace_s,
    )
    return uvicorn.Server(config)


def serve(
    engine: "Engine",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = DEFAULT,
    grace_s: int = 30,
) -> None:
    """Serve until SIGTERM or SIGINT, and then until the requests that were begun are answered.

    Args:
        engine: What predicts.
        host: Address to listen on; "0.0.0.0" for all.
        port: Port; 0 for any free one, which the log names.
        limits: What is accepted.
        grace_s: Seconds for requests to finish after the signal; a second SIGINT ends at once.

    Raises:
        ValueError: A domain whose images cannot be made of image files.
        SystemExit: The port cannot be had; the log says why.
    """
    server = make_server(engine, host=host, port=port, limits=limits, grace_s=grace_s)
    with _stopped_by_signals(server):
        server.run()


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Inside, signals end the server and nothing else.

    uvicorn handles them while it runs, and then raises them again for the handler that was there
    before: that would end the process by the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
