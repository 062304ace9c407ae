"""How much a server takes on; no torch is imported here."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What one server process accepts.

    At most `max_requests * max_bytes` of uploads and `max_queue` prepared images are in memory.

    Raises:
        ValueError: A limit that is not positive (`max_wait_ms`: negative), or `max_queue` below
            `max_images`.
    """

    max_batch: int = 32
    """Images computed at once."""

    max_wait_ms: float = 2.0
    """Milliseconds an image waits at most for others to be computed with it."""

    max_queue: int = 256
    """Images waiting to be computed; a request beyond is refused (503)."""

    max_requests: int = 128
    """Predictions under way, uploads included; a request beyond is refused (503)."""

    max_bytes: int = 10_000_000
    """Bytes of the body of a request; a larger one is refused (413)."""

    max_pixels: int = 50_000_000
    """Width times height of an image as uploaded; a larger one is not decoded (422)."""

    max_images: int = 32
    """Images in one multipart request."""

    timeout_s: float = 30.0
    """Seconds to receive a request (else 408), and again to answer it (else 503)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, free = getattr(self, field.name), field.name == "max_wait_ms"
            if not (value > 0 or (free and value == 0)):
                least = "at least 0" if free else "more than 0"
                raise ValueError(f"{field.name}={value} must be {least}")
        if self.max_queue < self.max_images:
            raise ValueError(
                f"max_queue={self.max_queue} cannot hold one request of max_images="
                f"{self.max_images} images; use at least as many"
            )


DEFAULT = Limits()
