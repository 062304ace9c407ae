"""`weightfold domains serve`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from weightfold.cli.options import BundleModel
from weightfold.serve.limits import DEFAULT, Limits
from weightfold.serve.starting import starting

if TYPE_CHECKING:
    from weightfold.serve.engine import Engine

TUNED_IMAGES = 16


@dataclass(frozen=True)
class Serve:
    """Serve a bundle's domains over HTTP until SIGTERM or Ctrl-C.

    POST an image to /v1/domains/NAME/predict; GET /v1/domains, /healthz, /readyz and /metrics.
    Images of concurrent requests, of any domains, are computed together.
    """

    source: tyro.conf.Positional[Path]
    """A bundle, or the folder of 'domains train' or of one of its strategies that holds it."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""

    port: int = 8000
    """Port; 0 for any free one."""

    max_batch: int = DEFAULT.max_batch
    """Images computed at once."""

    max_wait_ms: float = DEFAULT.max_wait_ms
    """Milliseconds that an image waits at most for others to be computed with it."""

    max_bytes: int = DEFAULT.max_bytes
    """Bytes of a request; a larger one is refused."""

    max_request_pixels: int = DEFAULT.max_request_pixels
    """Pixels of all images of a request; more are refused."""

    max_connections: int = DEFAULT.max_connections
    """Connections open at once; one more is refused."""

    memory: int | None = None
    """Bytes of tensors held at once, the shared ones and the domains' own, of which those used
    longest ago are let go; refused if the shared ones and one domain do not fit. None: all may
    stay."""

    tune: bool = True
    """Before serving, measure layer by layer how this machine best runs several domains at once."""

    model: BundleModel = None

    def run(self) -> None:
        """Serve."""
        with starting():
            engine, limits, serve = self._ready()
            serve(engine, host=self.host, port=self.port, limits=limits)

    def _ready(self) -> "tuple[Engine, Limits, Callable[..., None]]":
        """The engine, what is taken on, and what serves."""
        from weightfold.serve.engine import Engine
        from weightfold.serve.files import tune_kernels
        from weightfold.train.domains.bundles import open_bundle

        limits = Limits(
            max_batch=self.max_batch,
            max_wait_ms=self.max_wait_ms,
            max_bytes=self.max_bytes,
            max_request_pixels=self.max_request_pixels,
            max_connections=self.max_connections,
        )
        try:
            from weightfold.serve.server import serve
        except ImportError as error:
            raise ImportError(
                f"serving needs {error.name}: pip install 'weightfold[serve]'"
            ) from error
        bundle, model, _ = open_bundle(self.source, self.model)
        engine = Engine(bundle, model, max_bytes=self.memory)
        choices = tune_kernels(engine, min(self.max_batch, TUNED_IMAGES)) if self.tune else {}
        if choices:
            kernels = Counter(choice.kernel for choice in choices.values())
            shown = ", ".join(f"{count} {kernel}" for kernel, count in kernels.items())
            print(f"kernels of {len(choices)} layers, several domains at once: {shown}")
        print(f"{len(engine.domains)} domains: {', '.join(engine.domains)}", flush=True)
        return engine, limits, serve
