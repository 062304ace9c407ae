"""Predictions for images of many domains, from a bundle on disk, in any number of threads."""

import copy
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.cache import DeltaCache
from weightfold.methods.share.net import SharedNet
from weightfold.methods.share.tuning import Choice, tune

READY = 8
"""Domains a thread keeps as modules, the last used; of others it holds the mapped bytes alone."""


@dataclass(frozen=True)
class Preprocessing:
    """How a domain's images are prepared.

    Attributes:
        image_shape: (C, H, W).
        mean: Of images / 255, per channel.
        std: Of images / 255, per channel.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Engine:
    """Serves a saved SharedNet; thread-safe, without global state.

    The shared tensors are in memory once. Deltas are mapped when a domain is first asked for, and
    the ones used longest ago are let go where `max_bytes` would be exceeded. Every thread runs its
    own copy of the modules over the same tensors.

    Args:
        bundle: A `Bundle`, or the folder `wf.save` wrote.
        model: A plain module of the architecture that was shared.
        max_bytes: Cap on the deltas held; None: all may stay.

    Raises:
        FileNotFoundError: No bundle there.
        ValueError: The bundle is damaged or has charts above the sharing, or the cap is too small.
        KeyError: `model` is of another architecture.
    """

    def __init__(
        self, bundle: Bundle | str | Path, model: nn.Module, *, max_bytes: int | None = None
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        sizes = self.bundle.sizes()
        everything = max(1, sum(sizes.domains.values()))
        self.cache = DeltaCache(self.bundle, everything if max_bytes is None else max_bytes)
        net = self.bundle.load(model, domains=self.bundle.domains[:1])
        assert isinstance(net, SharedNet)
        net.sharing.uninstall_domain(self.bundle.domains[0])
        net.sharing.classes = self.bundle.classes
        self._net = net.requires_grad_(False).eval()
        self._shared_bytes = sizes.shared
        self._lock, self._local = threading.Lock(), threading.local()

    @property
    def domains(self) -> list[str]:
        """Names of all domains, resident or on disk."""
        return self.bundle.domains

    def classes(self, domain: str) -> tuple[str, ...]:
        """Names of a domain's classes; their numbers, if the bundle has no names.

        Raises:
            KeyError: No such domain; the message lists them.
        """
        count = self.bundle.classes[self._known(domain)]
        names = self.bundle.class_names[domain]
        return tuple(names) if names else tuple(map(str, range(count)))

    def preprocessing(self, domain: str) -> Preprocessing:
        """How to prepare a domain's images.

        Raises:
            KeyError: No such domain; the message lists them.
            ValueError: The bundle does not say.
        """
        told = self.bundle.preprocessing[self._known(domain)]
        if missing := {"image_shape", "mean", "std"} - told.keys():
            raise ValueError(
                f"{self.bundle.folder} does not say the {', '.join(sorted(missing))} of "
                f"{domain!r}; set net.about[{domain!r}] before wf.save"
            )
        return Preprocessing(*(tuple(told[key]) for key in ("image_shape", "mean", "std")))

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], domains: Sequence[str]) -> list[Tensor]:
        """Class probabilities of images that may each be of another domain and size.

        Args:
            images: Normalised float32 (C, H, W).
            domains: One an image.

        Returns:
            For each image float32 (classes of its domain,).

        Raises:
            KeyError: No such domain; the message lists them.
            ValueError: Not one domain an image, or a file of the bundle is damaged.
        """
        if len(images) != len(domains):
            raise ValueError(f"{len(images)} images and {len(domains)} domains; give one each")
        for name in domains:
            self._known(name)
        sizes: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(index)
        found: dict[int, Tensor] = {}
        for indices in sizes.values():
            x, names = torch.stack([images[i] for i in indices]), [domains[i] for i in indices]
            net = self._replica(set(names))
            probabilities = net(x, domain=names).softmax(1)
            for row, i, name in zip(probabilities, indices, names, strict=True):
                found[i] = row[: self.bundle.classes[name]]
        return [found[i] for i in range(len(images))]

    def tune(self, images: Tensor, domains: Sequence[str]) -> dict[str, Choice]:
        """Measure, layer by layer, how this machine best runs such a batch, and run so from now on.

        Args:
            images: float32 (B, C, H, W).
            domains: One an image, at least two different ones.
        """
        net = self._replica(set(domains))
        with torch.inference_mode():
            choices = tune(net, images, domains)
        with self._lock:
            self._local = threading.local()
            for path, choice in choices.items():
                self._net.model.get_submodule(path).kernel = choice.kernel  # type: ignore[assignment]
        return choices

    def stats(self) -> dict[str, Any]:
        """Resident domains, bytes in memory, and what the cache has done."""
        counts = self.cache.counts
        return {
            "resident": self.cache.held,
            "bytes": self._shared_bytes + counts.resident,
            "hits": counts.hits,
            "misses": counts.misses,
            "evictions": counts.evictions,
        }

    def _known(self, name: str) -> str:
        if name not in self.bundle.classes:
            raise KeyError(f"domain={name!r}; the domains are {', '.join(self.domains)}")
        return name

    def _replica(self, names: set[str]) -> SharedNet:
        """This thread's net with the deltas of `names`: its own modules over the same tensors."""
        deltas = {name: self.cache.get(name) for name in names}
        local = self._local  # which `tune` may replace meanwhile
        net: SharedNet | None = getattr(local, "net", None)
        if net is None:
            with self._lock:
                tensors = (*self._net.parameters(), *self._net.buffers())
                net = local.net = copy.deepcopy(self._net, {id(t): t for t in tensors})
            local.recent, local.names, local.holding = {}, None, ExitStack()
        recent: dict[str, None] = local.recent
        for name in names:
            if name not in recent:
                net.sharing.install_domain(name, _own(name, deltas[name]))
            recent[name] = recent.pop(name, None)
        kept = set(self.cache.held) | names
        idle = [name for name in recent if name not in names]
        surplus = set(idle[: max(0, len(recent) - READY)])
        for name in idle:
            if name in surplus or name not in kept:
                net.sharing.uninstall_domain(name)
                del recent[name]
        if names != local.names:
            # The stacked tensors of the last set of domains stay, for batches of the same set.
            local.holding.close()
            local.holding, local.names = ExitStack(), names
            local.holding.enter_context(net.hold())
        return net


def _own(domain: str, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A delta by the names of the plain network."""
    prefix = f"charts.0.domains.{domain}."
    own: dict[str, Tensor] = {}
    for name, tensor in delta.items():
        learnt = tensor.is_floating_point() and "running_" not in name
        own[name.removeprefix(prefix)] = nn.Parameter(tensor, False) if learnt else tensor
    return own
