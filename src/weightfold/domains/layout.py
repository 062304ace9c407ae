"""How the tensors of a network split into shared ones and one domain's own, and join again."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.core.slots import tensor_at, vacate
from weightfold.domains.executors import (
    DomainBatchNorm,
    DomainConv,
    DomainLayer,
    DomainLinear,
    interlace,
    runs_of,
)


@dataclass(frozen=True)
class Layout:
    """The layers in which domains own something.

    Attributes:
        own: Convolution path -> True for each filter (first axis) the domains own.
        norms: Paths of batch norms each domain owns, statistics included.
        head: Path of the classifier.
        shared_head: Rows of one classifier for all, of which a domain uses the first, or 0.
        outline: Path -> the plain layer without its tensors.
        names: Path -> names of the layer's parameters and buffers.
    """

    own: dict[str, list[bool]]
    norms: list[str]
    head: str
    shared_head: int
    outline: dict[str, nn.Module]
    names: dict[str, list[str]]

    @classmethod
    def of(
        cls,
        layers: Mapping[str, nn.Module],
        own: Mapping[str, Sequence[bool]],
        norms: Sequence[str],
        head: str,
        shared_head: int,
    ) -> "Layout":
        """The layout over plain `layers`, by path."""
        names = {path: list(layer.state_dict()) for path, layer in layers.items()}
        outline = {path: vacate(layer, names[path]) for path, layer in layers.items()}
        masks = {path: list(map(bool, mask)) for path, mask in own.items()}
        return cls(masks, list(norms), head, shared_head, outline, names)

    @property
    def tensors(self) -> list[tuple[str, str]]:
        """Path of the layer and name in it, of every tensor."""
        return [(path, name) for path, names in self.names.items() for name in names]

    def cut(self, path: str, value: Tensor, rows: int | None, *, shared: bool) -> Tensor | None:
        """A copy of the part of a layer's tensor that is shared, or that a domain owns.

        Args:
            path: The layer's.
            value: The plain tensor.
            rows: Of the part, for the head: new ones are zero. None: as they are.
            shared: Which part.

        Returns:
            None if there is no such part.
        """
        if path in self.own:
            mask = torch.tensor(self.own[path], device=value.device) ^ shared
            part = value[mask] if mask.any() else None
        else:
            part = value if shared == (path == self.head and self.shared_head > 0) else None
        if part is None or not isinstance(value, nn.Parameter):
            return copy.deepcopy(part)
        part = resized(part.detach(), len(part) if rows is None else rows)
        return nn.Parameter(part.clone(), value.requires_grad)

    def join(self, part: "Place", classes: int) -> Tensor:
        """The plain layer's tensor from its two parts."""
        shared, mine = part.shared, part.mine
        if part.path == self.head and shared is not None:
            return shared[:classes]
        if shared is None or mine is None:
            return mine if shared is None else shared  # type: ignore[return-value]
        return interlace(shared, mine, runs_of(self.own[part.path]), 0)

    def assign(self, part: "Place", value: Tensor) -> None:
        """Write a plain layer's tensor into its two parts; a head of other classes is left."""
        at_head = part.path == self.head
        for tensor, shared in ((part.shared, True), (part.mine, False)):
            if tensor is None:
                continue
            fits = not at_head or len(value) == len(tensor) or (shared and len(value) < len(tensor))
            if fits:
                rows = len(tensor) if at_head else None
                new = self.cut(part.path, value, rows, shared=shared)
                tensor.copy_(new)  # type: ignore[arg-type]

    def places(self, shared: nn.Module, mine: nn.Module) -> "list[Place]":
        """Where the two parts of every tensor are kept."""
        found = []
        for path, name in self.tensors:
            kept, own = (f"{path}.{slot}" for slot in self.slots(path, name))
            holders = _holder(shared, path, name), _holder(mine, path, name)
            found.append(Place(path, name, *holders, kept, own))
        return found

    def operands(self, domains: "Sequence[list[Place]]", classes: int) -> dict[str, Tensor]:
        """What the executors run on: shared parts as they are, own ones stacked (K, ...).

        Args:
            domains: From `places`, one a row of the stacks.
            classes: Rows of every head.
        """
        rows: dict[str, list[Tensor]] = {}
        out: dict[str, Tensor] = {}
        for places in domains:
            for place in places:
                if (shared := place.shared) is not None:
                    at_head = place.path == self.head
                    out[place.shared_slot] = shared[:classes] if at_head else shared
                if (mine := place.mine) is not None:
                    value = resized(mine, classes) if place.path == self.head else mine
                    rows.setdefault(place.own_slot, []).append(value)
        return out | stack(rows)

    def executor(self, path: str) -> DomainLayer:
        """What runs in the layer's place."""
        layer = self.outline[path]
        if isinstance(layer, nn.Linear):
            return DomainLinear()
        if path in self.norms:
            return DomainBatchNorm(layer)
        return DomainConv(layer, [] if path == self.head else self.own[path])

    @property
    def executed(self) -> list[str]:
        """Paths of the layers an executor replaces: all but a shared head."""
        return [path for path in self.names if path != self.head or not self.shared_head]

    def slots(self, path: str, name: str) -> tuple[str, str]:
        """Names of the slots for the shared and the own part of a tensor."""
        linear = isinstance(self.outline[path], nn.Linear)
        if linear or path in self.norms or path not in self.executed:
            return name, name
        return ("shared", "own") if name == "weight" else ("shared_bias", "own_bias")

    def convolution(self, path: str, filters: int) -> nn.Module | None:
        """The convolution with `filters` of its filters, without tensors; None if it is no such."""
        layer: Any = copy.deepcopy(self.outline[path])
        if path not in self.own or (layer.groups > 1 and filters != layer.out_channels):
            return None
        layer.out_channels = filters
        return layer

    def classifier(self, classes: int) -> nn.Module:
        """The plain head with that many classes, without its tensors."""
        layer: Any = copy.deepcopy(self.outline[self.head])
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", classes)
        return layer


@dataclass(frozen=True)
class Place:
    """A tensor of the plain network and where its two parts are.

    Attributes:
        path: Of its layer.
        tensor: Its name in the layer.
        shared_in: Holds the shared part; None if there is none.
        mine_in: Holds the part of one domain.
        shared_slot: Where an executor finds the shared part.
        own_slot: Where it finds the stacked own parts.
    """

    path: str
    tensor: str
    shared_in: nn.Module | None
    mine_in: nn.Module | None
    shared_slot: str
    own_slot: str

    @property
    def name(self) -> str:
        """In the plain network."""
        return f"{self.path}.{self.tensor}"

    @property
    def shared(self) -> Tensor | None:
        """The shared part, at present."""
        return None if self.shared_in is None else getattr(self.shared_in, self.tensor)

    @property
    def mine(self) -> Tensor | None:
        """The domain's part, at present."""
        return None if self.mine_in is None else getattr(self.mine_in, self.tensor)


def _holder(root: nn.Module, path: str, name: str) -> nn.Module | None:
    """The module of `root` that holds a tensor, if there is one."""
    try:
        module = root.get_submodule(path)
    except AttributeError:
        return None
    return module if name in module._parameters or name in module._buffers else None


def resized(value: Tensor, rows: int) -> Tensor:
    """The first `rows` rows of `value`, rows it lacks being zero."""
    missing = rows - len(value)
    return F.pad(value, (0, 0) * (value.dim() - 1) + (0, missing)) if missing else value


def stack(rows: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """For each name, the tensors of K domains as one (K, ...): views if K = 1.

    All tensors of a sort are copied in one call: hundreds of small ones would cost more in calls
    than in bytes.
    """
    out = {name: tensors[0].unsqueeze(0) for name, tensors in rows.items() if len(tensors) == 1}
    sorts: dict[Any, list[str]] = {}
    for name, tensors in rows.items():
        if name not in out:
            sorts.setdefault((tensors[0].dtype, tensors[0].requires_grad), []).append(name)
    for names in sorts.values():
        flat = torch.cat([t.flatten() for name in names for t in rows[name]])
        shapes = [(len(rows[name]), *rows[name][0].shape) for name in names]
        parts = flat.split([prod(shape) for shape in shapes])
        out |= {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
    return out


def operands_of(operands: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Those of one layer, by the names of its slots."""
    return {
        name.rpartition(".")[2]: value
        for name, value in operands.items()
        if name.rpartition(".")[0] == path
    }


def ranges(mask: Sequence[bool]) -> list[list[int]]:
    """Where a mask is True, as [start, stop) pairs."""
    found, position = [], 0
    for own, length in runs_of(mask):
        if own:
            found.append([position, position + length])
        position += length
    return found


def filter_mask(pairs: Sequence[Sequence[int]], layer: nn.Module) -> list[bool]:
    """Inverse of `ranges`, over the filters of `layer`."""
    mask = [False] * len(tensor_at(layer, "weight"))
    for start, stop in pairs:
        mask[start:stop] = [True] * (stop - start)
    return mask
