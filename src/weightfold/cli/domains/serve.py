"""`weightfold domains serve`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro

from weightfold.serve.limits import DEFAULT

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

    memory: int | None = None
    """Bytes of the domains' own tensors held at once; those used longest ago are let go. None: all
    may stay."""

    tune: bool = True
    """Before serving, measure layer by layer how this machine best runs several domains at once."""

    model: str | None = None
    """Network, for a bundle that does not tell its own."""

    def run(self) -> None:
        """Serve."""
        from weightfold.serve.engine import Engine
        from weightfold.serve.files import tune_kernels
        from weightfold.serve.limits import Limits
        from weightfold.train.domains.bundles import open_bundle

        limits = Limits(
            max_batch=self.max_batch, max_wait_ms=self.max_wait_ms, max_bytes=self.max_bytes
        )
        try:
            from weightfold.serve.http import serve
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
        serve(engine, host=self.host, port=self.port, limits=limits)
