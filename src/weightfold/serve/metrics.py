"""What a server tells Prometheus."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from weightfold.serve.engine import Engine

_COUNTS = tuple(2.0**power for power in range(9))
_NO_DOMAIN = "(none)"


class Metrics:
    """Counts of one server, in a registry of its own.

    Args:
        engine: Whose `stats` are shown, each as `weightfold_engine_...`.
    """

    def __init__(self, engine: "Engine") -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter(
            "weightfold_requests", "Requests to predict.", ["domain", "status"], **own
        )
        self.seconds = Histogram(
            "weightfold_request_seconds", "From request to answer, predictions only.", **own
        )
        self.under_way = Gauge("weightfold_requests_under_way", "Requests not yet answered.", **own)
        self.waiting = Gauge("weightfold_images_waiting", "Images not yet computed.", **own)
        self.batch_images = Histogram(
            "weightfold_batch_images", "Images computed at once.", buckets=_COUNTS, **own
        )
        self.batch_domains = Histogram(
            "weightfold_batch_domains", "Domains computed at once.", buckets=_COUNTS, **own
        )
        self.batch_seconds = Histogram(
            "weightfold_batch_seconds", "Time to compute a batch.", **own
        )
        self.registry.register(_EngineStats(engine))

    def observe_batch(self, images: int, domains: int, seconds: float) -> None:
        """Count a call of the engine."""
        self.batch_images.observe(images)
        self.batch_domains.observe(domains)
        self.batch_seconds.observe(seconds)

    def page(self) -> Response:
        """All of them, in Prometheus' text format."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class CountRequests:
    """ASGI middleware of one route: counts its requests by domain and status.

    Only a domain that the route has found under `scope["state"]["domain"]` becomes a label, so that
    mistyped names cannot fill the memory.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the route."""
        status, start = 500, time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            domain = scope.get("state", {}).get("domain", _NO_DOMAIN)
            self._metrics.requests.labels(domain, str(status)).inc()
            self._metrics.seconds.observe(time.perf_counter() - start)


class _EngineStats(Collector):
    """The engine's own counts, read when Prometheus asks."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        for name, value in self._engine.stats().items():
            count = _number(value)
            yield GaugeMetricFamily(f"weightfold_engine_{name}", f"Engine: {name}.", value=count)


def _number(value: Any) -> float:
    """A count as it is, a collection by its size."""
    return float(len(value)) if hasattr(value, "__len__") else float(value)
