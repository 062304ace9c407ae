"""Deltas of many domains, in memory, under a cap."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from torch import Tensor

from weightfold.methods.share.bundle import Bundle


@dataclass
class Counts:
    """What a cache has done, and holds.

    Attributes:
        hits: Calls that found the delta, or met its loading.
        misses: Calls that loaded.
        evictions: Deltas let go for others.
        resident: Bytes of the deltas held.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    resident: int = 0


class DeltaCache:
    """The deltas used last, up to a number of bytes; for any number of threads.

    A delta is read into memory and checked against its hash as it is read. One that is let go
    stays in memory for as long as a caller holds it.

    Args:
        bundle: Where deltas come from.
        max_bytes: Cap on the tensors held.
        domains: Those that may be asked for; None: all.

    Attributes:
        counts: Read it at any time.

    Raises:
        ValueError: `max_bytes` is below 1.
    """

    def __init__(
        self, bundle: Bundle, max_bytes: int, domains: Sequence[str] | None = None
    ) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes}; the cap is 1 byte or more")
        self.bundle, self.max_bytes = bundle, max_bytes
        self.counts = Counts()
        self._sizes = bundle.sizes(domains).domains
        self._held: OrderedDict[str, Future[Mapping[str, Tensor]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Mapping[str, Tensor]:
        """The delta of a domain, as `Bundle.delta` gives it; loaded once by however many threads.

        Raises:
            KeyError: The bundle has no such domain.
            FileNotFoundError: The file is missing.
            ValueError: The delta is larger than the cap, or its file is damaged.
        """
        with self._lock:
            if name in self._held:
                self.counts.hits += 1
                self._held.move_to_end(name)
                delta = self._held[name]
                loads = False
            else:
                self._make_room(name)
                self.counts.misses += 1
                delta = self._held[name] = Future()
                loads = True
        if loads:
            self._load(name, delta)
        return delta.result()

    def adopt(self, other: "DeltaCache") -> None:
        """Take over counts, and those deltas whose files are the same in this cache's bundle.

        Args:
            other: Of an earlier state of the bundle.
        """
        ours, theirs = (b.manifest["parts"] for b in (self.bundle, other.bundle))
        with other._lock, self._lock:
            self.counts = replace(other.counts, resident=self.counts.resident)
            for name, delta in other._held.items():
                same = name in self._sizes and ours.get(name) == theirs.get(name)
                size = self._sizes.get(name, 0)
                if same and delta.done() and self.counts.resident + size <= self.max_bytes:
                    self._held[name] = delta
                    self.counts.resident += size

    @property
    def held(self) -> list[str]:
        """Domains whose deltas are held, the one used longest ago first."""
        with self._lock:
            return list(self._held)

    def _make_room(self, name: str) -> None:
        if name not in self._sizes:
            raise KeyError(f"domain={name!r}; the domains are {', '.join(self._sizes)}")
        if (size := self._sizes[name]) > self.max_bytes:
            raise ValueError(
                f"the delta of {name!r} has {size:,} bytes, more than max_bytes={self.max_bytes:,}"
            )
        while self.counts.resident + size > self.max_bytes:
            self._forget(next(iter(self._held)))
            self.counts.evictions += 1
        self.counts.resident += size

    def _forget(self, name: str) -> None:
        del self._held[name]
        self.counts.resident -= self._sizes[name]

    def _load(self, name: str, delta: Future[Mapping[str, Tensor]]) -> None:
        """Load outside the lock, so that deltas already here are not kept waiting."""
        try:
            tensors = self.bundle.delta(name)
        except BaseException as error:
            with self._lock:
                if self._held.get(name) is delta:
                    self._forget(name)
            delta.set_exception(error)
        else:
            delta.set_result(tensors)
