"""Connections that end: uvicorn's HTTP/1.1 protocol with a time limit on everything but computing.

uvicorn limits the time between requests (`timeout_keep_alive`) and what is under way
(`limit_concurrency`), but neither how long a client may take to send a request or to read its
answer nor how many connections are open; no ASGI application sees a request before its headers are
complete. https://uvicorn.dev/settings/#timeouts
"""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from weightfold.serve.limits import Limits

LINGER_S = 0.1
"""Seconds for which a connection outlives its end: a request that arrived but was not yet read is
answered when the server is told to end; an answer is read before the system discards it."""


class LimitedConnection(H11Protocol):
    """A connection that is closed when its client is too slow, or one too many.

    From the beginning, and from the end of each answer, a client has `header_s` to send the headers
    of a request; then `request_s` until it has read the answer (the application's own limits on
    receiving and computing are shorter and answer with a reason).

    Args:
        limits: Of the server.
        **options: uvicorn's own.
    """

    def __init__(self, *, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._begun: Any = None  # the cycle of the request under way
        self._ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it."""
        super().connection_made(transport)
        most = self._limits.max_connections
        if len(self.connections) > most:
            self._end(503, f"{most} connections are open already; try again later")
        else:
            self._allow(self._limits.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what a client sends, up to the end."""
        if not self._ended:
            super().data_received(data)

    def handle_events(self) -> None:
        """Start what has arrived."""
        super().handle_events()
        if self.cycle is not self._begun and not self.cycle.response_complete:
            self._begun = self.cycle
            self._allow(self._limits.request_s)

    def on_response_complete(self) -> None:
        """Wait for the next request; first of all until this one's answer is read."""
        unread = self.transport.get_write_buffer_size() > 0
        self._allow(self._limits.timeout_s if unread else self._limits.header_s)
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close once nothing is under way, nor on its way."""
        self.loop.call_later(LINGER_S, self._close)

    def _close(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _allow(self, seconds: float) -> None:
        self._forget_timer()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """End a connection whose time is up, with a reason where a client may listen."""
        begun = bool(self.conn.trailing_data[0])
        if self.conn.our_state is h11.IDLE and begun and not self.transport.is_closing():
            seconds = self._limits.header_s
            self._end(408, f"the headers did not arrive within {seconds:g} s")
        else:
            self.transport.abort()

    def _end(self, status: int, reason: str) -> None:
        """Answer without an application, and close soon."""
        body = json.dumps({"error": reason}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        answer = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.write_eof()
        self._ended = True
        self._allow(LINGER_S)
