"""A bundle as it was at one moment, ready to predict."""

import copy
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from weightfold.core.part_file import file_of
from weightfold.core.preprocessing import Preprocessing, check_class_names
from weightfold.core.tensor_file import DTYPES
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.cache import DeltaCache
from weightfold.methods.share.net import SharedNet

READY = 8
"""Domains a thread keeps in place, the last used; of others it holds the bytes alone."""

Wanted = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


class DomainUnavailable(RuntimeError):
    """A domain of the bundle cannot be served at present; the message says why."""


class Snapshot:
    """What one manifest names: the shared tensors in memory, deltas under a cap; thread-safe.

    Every thread runs its own copy of the modules over the same tensors.

    Args:
        folder: Of the bundle.
        model: A plain module of the architecture that was shared; left unchanged.
        max_bytes: Cap on the shared tensors and the deltas held; None: all may stay.
        before: An earlier one, whose deltas are taken over where their files are the same.

    Attributes:
        bundle: The bundle; never changed.
        classes: Domain -> number of classes.
        class_names: Domain -> names of its classes; their numbers, where the bundle has none.
        preprocessing: Domain -> how its images are prepared, where the bundle says so.
        refused: Domain -> why it cannot be served.
        cache: The deltas.

    Raises:
        FileNotFoundError: There is no manifest, or no file of the shared tensors.
        ValueError: The shared tensors are damaged, the cap cannot hold them and a domain, no domain
            can be served, or charts lie above the sharing.
        KeyError: `model` is of another architecture.
    """

    def __init__(
        self, folder: Path, model: nn.Module, max_bytes: int | None, before: Self | None = None
    ) -> None:
        self.bundle = bundle = Bundle(folder)
        self.classes = bundle.classes
        self.class_names: dict[str, tuple[str, ...]] = {}
        self.preprocessing: dict[str, Preprocessing] = {}
        self.refused: dict[str, str] = {}
        for name in self.classes:
            if reason := self._wrongly_told(name) or self._missing(name):
                self.refused[name] = reason
        usable = [name for name in self.classes if name not in self.refused]
        if not usable:
            raise ValueError(f"{folder} has no domain that can be served: {self.reasons}")
        self._net, self.dtype = self._load(model, usable[0])
        layout = self._net.sharing.layout
        wanted = _wanted(self._net.sharing.domains[usable[0]])
        for name in usable:
            given = {
                tensor: ((self.classes[name], *shape[1:]), dtype)
                if tensor.rpartition(".")[0] == layout.head
                else (shape, dtype)
                for tensor, (shape, dtype) in wanted.items()
            }
            known = before is not None and self._entry(name) == before._entry(name)
            if reason := self._unfit(name, given) or ("" if known else self._damaged(name)):
                self.refused[name] = reason
        self._refuse_shapes(usable[0])
        self._net.sharing.uninstall_domain(usable[0])
        self._net.sharing.classes = self.classes
        self.shared_bytes, self.cache = self._cache(max_bytes)
        if before is not None:
            self.cache.adopt(before.cache)
        self._lock, self._local = threading.Lock(), threading.local()

    @property
    def reasons(self) -> str:
        """Why domains are refused, in one line."""
        return "; ".join(f"{name!r}: {reason}" for name, reason in self.refused.items())

    def _wrongly_told(self, name: str) -> str | None:
        about = self.bundle.about[name]
        count, names = self.classes[name], about.get("class_names", [])
        self.class_names[name] = tuple(map(str, range(count)))
        try:
            check_class_names(names, count)
            self.class_names[name] = tuple(names) or self.class_names[name]
            if (told := Preprocessing.of_record(about)) is not None:
                self.preprocessing[name] = told
        except ValueError as error:
            return str(error)
        return None

    def _missing(self, name: str) -> str | None:
        if name not in self.bundle.manifest["parts"]:
            return None  # it owns nothing
        file = file_of(self.bundle.folder, self.bundle.manifest, name)
        return None if file.is_file() else f"its file {file.name} is missing"

    def _load(self, model: nn.Module, first: str) -> tuple[SharedNet, torch.dtype | None]:
        """The net with one domain, in the dtype it was saved in."""
        shared = self.bundle.shared()
        if reason := _not_finite(shared):
            raise ValueError(f"{self.bundle.folder} cannot be served: {reason}")
        stored = {**shared, **self.bundle.delta(first)}
        dtypes = {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()}
        if len(dtypes) > 1:
            raise ValueError(
                f"{self.bundle.folder} has tensors of {' and '.join(sorted(map(str, dtypes)))} in "
                f"the shared file and that of {first!r}; save the net in one dtype"
            )
        dtype = next(iter(dtypes), None)
        net = self.bundle.load(copy.deepcopy(model).to(dtype), domains=[first])
        if not isinstance(net, SharedNet):
            raise ValueError(
                f"{self.bundle.folder} has charts above the sharing of domains; serve what "
                "net.lower() gives, saved"
            )
        return net.requires_grad_(False).eval(), dtype

    def _unfit(self, name: str, wanted: Wanted) -> str | None:
        """Why a delta, by the header of its file, does not fit the net; None if it does."""
        if name not in self.bundle.manifest["parts"]:
            return None
        file = file_of(self.bundle.folder, self.bundle.manifest, name)
        prefix = _prefix(name)
        try:
            with safe_open(file, "pt") as opened:
                slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
                found = {
                    key.removeprefix(prefix): (tuple(s.get_shape()), DTYPES.get(s.get_dtype()))
                    for key, s in slices.items()
                }
        except (OSError, SafetensorError) as error:
            return f"its file {file.name} cannot be read: {error}"
        for tensor in sorted(found.keys() | wanted.keys()):
            if found.get(tensor) != wanted.get(tensor):
                return (
                    f"its file {file.name} has {tensor!r} as {_shown(found.get(tensor))}, but the "
                    f"net needs {_shown(wanted.get(tensor))}"
                )
        return None

    def _entry(self, name: str) -> Any:
        """What the manifest says of a domain's file."""
        return self.bundle.manifest["parts"].get(name)

    def _damaged(self, name: str) -> str:
        """Why the tensors of a domain cannot be used; empty if they can."""
        try:
            return _not_finite(self.bundle.delta(name))
        except (OSError, ValueError) as error:
            return str(error)

    @torch.inference_mode()
    def _refuse_shapes(self, domain: str) -> None:
        """Refuse domains whose images the network, of one domain, does not take."""
        shapes = {told.image_shape for told in self.preprocessing.values()}
        for shape in shapes:
            try:
                self._net(torch.zeros(1, *shape, dtype=self.dtype), domain=domain)
            except (RuntimeError, ValueError) as error:
                reason = f"the network does not take its images of {shape}: {error}"
                for name, told in self.preprocessing.items():
                    if told.image_shape == shape:
                        self.refused.setdefault(name, reason)

    def _cache(self, max_bytes: int | None) -> tuple[int, DeltaCache]:
        """Bytes of the shared tensors, and the cache for what the cap leaves."""
        names = [name for name in self.classes if name not in self.refused]
        sizes = self.bundle.sizes(names)
        if max_bytes is None:
            room = max(1, sum(sizes.domains.values()))
            return sizes.shared, DeltaCache(self.bundle, room, names)
        name, largest = max(sizes.domains.items(), key=lambda item: item[1], default=("", 0))
        least = sizes.shared + max(1, largest)
        if max_bytes < least:
            raise ValueError(
                f"max_bytes={max_bytes:,} (--memory) cannot hold the shared tensors, "
                f"{sizes.shared:,} bytes, and the largest domain {name!r}, {largest:,} bytes; give "
                f"at least {least:,}"
            )
        return sizes.shared, DeltaCache(self.bundle, max_bytes - sizes.shared, names)

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], domains: Sequence[str]) -> list[Tensor]:
        """As `Engine.predict`."""
        sizes: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(index)
        found: dict[int, Tensor] = {}
        for indices in sizes.values():
            x, names = torch.stack([images[i] for i in indices]), [domains[i] for i in indices]
            logits = self.replica(set(names))(x.to(self.dtype), domain=names)
            probabilities = logits.softmax(1, dtype=torch.float32)
            if not probabilities.isfinite().all():
                wrong = (~probabilities.isfinite().all(dim=1)).nonzero()[0].item()
                raise DomainUnavailable(
                    f"the network of domain {names[int(wrong)]!r} gives NaN for an image"
                )
            for row, i, name in zip(probabilities, indices, names, strict=True):
                found[i] = row[: self.classes[name]]
        return [found[i] for i in range(len(images))]

    def use(self, kernels: Mapping[str, str]) -> None:
        """Run layers, by path, with these kernels from now on."""
        layers = dict(self._net.model.named_modules())
        with self._lock:
            self._local = threading.local()
            for path in kernels.keys() & layers.keys():
                layers[path].kernel = kernels[path]  # type: ignore[assignment]

    def replica(self, names: set[str]) -> SharedNet:
        """This thread's net with the deltas of `names`: its own modules over the same tensors.

        Raises:
            DomainUnavailable: One of them cannot be read.
        """
        deltas = {name: self._delta(name) for name in names}
        local = self._local  # which `use` may replace meanwhile
        net: SharedNet | None = getattr(local, "net", None)
        if net is None:
            with self._lock:
                tensors = (*self._net.parameters(), *self._net.buffers())
                net = local.net = copy.deepcopy(self._net, {id(t): t for t in tensors})
            local.recent, local.names, local.holding = {}, None, ExitStack()
        recent: dict[str, None] = local.recent
        for name in names:
            if name not in recent:
                prefix = _prefix(name)
                own = {n.removeprefix(prefix): t for n, t in deltas[name].items()}
                net.sharing.lend(name, own)
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

    def _delta(self, name: str) -> Mapping[str, Tensor]:
        if name in self.refused:
            raise DomainUnavailable(f"domain {name!r} cannot be served: {self.refused[name]}")
        try:
            return self.cache.get(name)
        except (OSError, ValueError) as error:
            raise DomainUnavailable(f"domain {name!r} cannot be served: {error}") from error


def _not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which tensor has values that are no numbers; empty if none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return f"its tensor {name!r} has values that are NaN or infinite"
    return ""


def _prefix(domain: str) -> str:
    """What the names of a domain's tensors begin with in a save."""
    return f"charts.0.domains.{domain}."


def _wanted(domain: nn.Module) -> Wanted:
    return {name: (tuple(t.shape), t.dtype) for name, t in domain.state_dict().items()}


def _shown(found: tuple[tuple[int, ...], torch.dtype | None] | None) -> str:
    return "nothing" if found is None else f"{found[1]} {found[0]}"
