"""How much a server takes on; no torch is imported here."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What one server process accepts.

    At most `max_requests * max_bytes` of uploads, `max_queue` prepared images and
    `max_decoding_pixels` of unpacked ones are in memory.

    Raises:
        ValueError: A limit that is not positive (`max_wait_ms`: negative), `max_queue` below
            `max_images`, or fewer pixels a request or at once than in an image.
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
    """Width times height of an image, as uploaded and as scaled; a larger one is not decoded (422).
    """

    max_request_pixels: int = 100_000_000
    """Pixels of all images of a request, by their headers; more are not decoded (413)."""

    max_decoding_pixels: int = 100_000_000
    """Pixels of the images decoded at once, of all requests; others wait their turn."""

    max_images: int = 32
    """Images in one multipart request."""

    max_connections: int = 512
    """Open connections; one more is refused (503)."""

    header_s: float = 10.0
    """Seconds, from its opening or its last answer, for a connection to send the headers of a
    request (else 408)."""

    idle_s: float = 5.0
    """Seconds that a connection may send nothing after an answer; then it is closed."""

    timeout_s: float = 30.0
    """Seconds to receive a request (else 408), again to answer it (else 503), and again for the
    client to read the answer."""

    @property
    def request_s(self) -> float:
        """Seconds from the headers of a request to its answer being read."""
        return 3 * self.timeout_s

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
        for name in ("max_request_pixels", "max_decoding_pixels"):
            if (value := getattr(self, name)) < self.max_pixels:
                raise ValueError(
                    f"{name}={value} cannot hold one image of max_pixels={self.max_pixels}; "
                    "use at least as many"
                )


DEFAULT = Limits()
