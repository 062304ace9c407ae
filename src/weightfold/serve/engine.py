"""Predictions for images of many domains, from a bundle on disk, in any number of threads."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.preprocessing import Preprocessing
from weightfold.core.store import MANIFEST
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.cache import DeltaCache
from weightfold.methods.share.tuning import Choice, tune
from weightfold.serve.snapshot import DomainUnavailable, Snapshot

__all__ = ["DomainUnavailable", "Engine", "Preprocessing"]

TRIES = 5
"""How often a bundle is read that is written again while it is read."""

Stamp = tuple[int, int, int]


class Engine:
    """Serves a saved SharedNet; thread-safe, without global state.

    The shared tensors are in memory once. A delta is read when its domain is first asked for, into
    memory of this process, and checked against its hash; the ones used longest ago are let go where
    `max_bytes` would be exceeded. What then happens to the files changes no answer.

    A bundle that is saved again, or gets or loses a domain, is taken over at the next call: all of
    it, or, where the new state cannot be served, nothing of it, and `update_refused` says why.

    Args:
        bundle: A `Bundle`, or the folder `wf.save` wrote.
        model: A plain module of the architecture that was shared.
        max_bytes: Cap on the shared tensors and the deltas held; None: all may stay. A batch holds
            the deltas of its own images, however many.

    Attributes:
        version: Counts the states of the bundle that were taken over.
        update_refused: Why a later state was not taken over; None: the newest is served.

    Raises:
        FileNotFoundError: No bundle there, or a file of it is missing.
        ValueError: The bundle is damaged or incomplete, tells wrong things of its domains or has
            charts above the sharing; or the cap cannot hold the shared tensors and one domain.
        KeyError: `model` is of another architecture.
    """

    def __init__(
        self, bundle: Bundle | str | Path, model: nn.Module, *, max_bytes: int | None = None
    ) -> None:
        self._folder = bundle.folder if isinstance(bundle, Bundle) else Path(bundle)
        self._model, self._max_bytes = model, max_bytes
        self._lock = threading.Lock()
        self._kernels: dict[str, str] = {}
        self.version = 0
        self.update_refused: str | None = None
        self._seen = self._stamp()
        self._now = Snapshot(self._folder, model, max_bytes)
        if self._now.refused:
            raise ValueError(f"{self._folder} cannot be served: {self._now.reasons}")

    @property
    def bundle(self) -> Bundle:
        """The state of the bundle that is served."""
        return self._now.bundle

    @property
    def cache(self) -> DeltaCache:
        """The deltas held."""
        return self._now.cache

    @property
    def domains(self) -> list[str]:
        """Names of all domains, resident or on disk."""
        self.refresh()
        return list(self._now.classes)

    @property
    def refused(self) -> dict[str, str]:
        """Domains that cannot be served, with the reason."""
        return dict(self._now.refused)

    @property
    def outdated(self) -> bool:
        """Whether the bundle was written since it was read."""
        return self._stamp() != self._seen

    def refresh(self) -> None:
        """Take over what was written since; costs a look at one file where nothing was."""
        if not self.outdated:
            return
        with self._lock:
            for _ in range(TRIES):
                if (stamp := self._stamp()) == self._seen:
                    return
                # A foreign or damaged state raises all sorts of errors; the present one is served.
                try:
                    now = Snapshot(self._folder, self._model, self._max_bytes, self._now)
                except Exception as error:
                    if self._stamp() == stamp:
                        self._seen, self.update_refused = stamp, str(error)
                    continue
                now.use(self._kernels)
                self._now, self._seen, self.update_refused = now, stamp, None
                self.version += 1

    def _stamp(self) -> Stamp | None:
        """Changes whenever the manifest is written; None: there is none."""
        try:
            found = (self._folder / MANIFEST).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def classes(self, domain: str) -> tuple[str, ...]:
        """Names of a domain's classes; their numbers, if the bundle has no names.

        Raises:
            KeyError: No such domain; the message lists them.
        """
        now = self._now
        return now.class_names[_known(now, domain)]

    def preprocessing(self, domain: str) -> Preprocessing:
        """How to prepare a domain's images.

        Raises:
            KeyError: No such domain; the message lists them.
            ValueError: The bundle does not say.
        """
        now = self._now
        if found := now.preprocessing.get(_known(now, domain)):
            return found
        if domain in now.refused:
            raise ValueError(f"domain {domain!r} cannot be served: {now.refused[domain]}")
        missing = {"image_shape", "mean", "std"} - now.bundle.about[domain].keys()
        raise ValueError(
            f"{self._folder} does not say the {', '.join(sorted(missing))} of "
            f"{domain!r}; set net.about[{domain!r}] before wf.save"
        )

    def predict(self, images: Sequence[Tensor], domains: Sequence[str]) -> list[Tensor]:
        """Class probabilities of images that may each be of another domain and size.

        Args:
            images: Normalised float32 (C, H, W).
            domains: One an image.

        Returns:
            For each image float32 (classes of its domain,).

        Raises:
            KeyError: No such domain; the message lists them.
            ValueError: Not one domain an image.
            DomainUnavailable: A domain's file is missing, damaged, or does not fit.
        """
        if len(images) != len(domains):
            raise ValueError(f"{len(images)} images and {len(domains)} domains; give one each")
        self.refresh()
        now = self._now
        try:
            return _predict(now, images, domains)
        except DomainUnavailable:
            # A save that replaces the files has put its manifest in force before.
            self.refresh()
            if self._now is now:
                raise
            return _predict(self._now, images, domains)

    def tune(self, images: Tensor, domains: Sequence[str]) -> dict[str, Choice]:
        """Measure, layer by layer, how this machine best runs such a batch, and run so from now on.

        Args:
            images: float32 (B, C, H, W).
            domains: One an image, at least two different ones.
        """
        now = self._now
        net = now.replica(set(domains))
        with torch.inference_mode():
            choices = tune(net, images.to(now.dtype), domains)
        self._kernels = {path: choice.kernel for path, choice in choices.items()}
        now.use(self._kernels)
        return choices

    def stats(self) -> dict[str, Any]:
        """Resident domains, bytes in memory, and what the cache has done."""
        now = self._now
        counts = now.cache.counts
        return {
            "resident": now.cache.held,
            "bytes": now.shared_bytes + counts.resident,
            "hits": counts.hits,
            "misses": counts.misses,
            "evictions": counts.evictions,
            "version": self.version,
        }


def _known(now: Snapshot, name: str) -> str:
    if name not in now.classes:
        raise KeyError(f"domain={name!r}; the domains are {', '.join(now.classes)}")
    return name


def _predict(now: Snapshot, images: Sequence[Tensor], domains: Sequence[str]) -> list[Tensor]:
    for name in domains:
        _known(now, name)
    return now.predict(images, domains)
