"""How the tensors of a network split into shared ones and one domain's own, and join again."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from types import CellType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightfold.core.slots import fill, hooks_of, runs_as, split_name, with_placeholders
from weightfold.methods.share.executors import (
    DomainBatchNorm,
    DomainConv,
    DomainLayer,
    DomainLinear,
    DomainModule,
    NormState,
    interlace,
    runs_of,
)

STANDARD = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.SyncBatchNorm, _BatchNorm)
"""Classes that an executor of ours runs in the place of."""


@dataclass(frozen=True)
class Layout:
    """The layers in which domains own something.

    Attributes:
        own: Convolution path -> True for each filter (first axis) the domains own.
        norms: Paths of batch norms each domain owns, statistics included.
        head: Path of the classifier.
        shared_head: Rows of one classifier for all, of which a domain uses the first, or 0.
        skeletons: Path -> the plain layer without its tensors.
        names: Path -> names of the layer's parameters and buffers.
    """

    own: dict[str, list[bool]]
    norms: list[str]
    head: str
    shared_head: int
    skeletons: dict[str, nn.Module]
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
        """The layout over plain `layers`, by path.

        Raises:
            ValueError: A layer that is owned in part, or the head, has a tensor without a row for
                each of its filters; one lies in another; or a function put on one holds a module,
                whose tensors it would use in place of the domains'.
        """
        for path, layer in layers.items():
            _check_alone(path, layer, layers)
        for path in (*own, head):
            filters = len(layers[path].weight)  # type: ignore[arg-type]
            for name, tensor in layers[path].state_dict().items():
                if tensor.dim() == 0 or len(tensor) != filters:
                    raise ValueError(
                        f"tensor {name!r} {tuple(tensor.shape)} of layer {path!r}, a "
                        f"{type(layers[path]).__name__}, has no row for each of its {filters} "
                        "filters, so that domains cannot own some of them"
                    )
        names = {path: list(layer.state_dict()) for path, layer in layers.items()}
        skeletons = {path: with_placeholders(layer, names[path]) for path, layer in layers.items()}
        masks = {path: list(map(bool, mask)) for path, mask in own.items()}
        return cls(masks, list(norms), head, shared_head, skeletons, names)

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
            rows_of = [i for i, owned in enumerate(self.own[path]) if owned != shared]
            part = value[torch.tensor(rows_of, device=value.device)] if rows_of else None
        else:
            part = value if shared == (path == self.head and self.shared_head > 0) else None
        if part is None or not isinstance(value, nn.Parameter):
            return copy.deepcopy(part)
        part = resized(part.detach(), len(part) if rows is None else rows)
        return nn.Parameter(part.clone(), value.requires_grad)

    def join(self, part: "Split", classes: int) -> Tensor:
        """The plain layer's tensor from its two parts."""
        shared, own = part.shared, part.own
        if part.path == self.head and shared is not None:
            return shared[:classes]
        if shared is None or own is None:
            return own if shared is None else shared  # type: ignore[return-value]
        return interlace(shared, own, runs_of(self.own[part.path]), 0)

    def assign(self, part: "Split", value: Tensor) -> None:
        """Write a plain layer's tensor into its two parts; a head of other classes is left."""
        at_head = part.path == self.head
        for tensor, shared in ((part.shared, True), (part.own, False)):
            if tensor is None:
                continue
            fits = not at_head or len(value) == len(tensor) or (shared and len(value) < len(tensor))
            if fits:
                new = self.cut(part.path, value, None, shared=shared)
                (tensor[: len(value)] if at_head else tensor).copy_(new)  # type: ignore[arg-type]

    def splits_of(self, shared: "Holders", own: "Holders") -> "list[Split]":
        """Where the two parts of every tensor are kept."""
        return [
            Split(
                path, tensor, shared.get(name), own.get(name), slots[0], slots[1], buffer, attribute
            )
            for name, path, tensor, slots, buffer, attribute in self._spots
        ]

    @cached_property
    def _spots(self) -> list[tuple[str, str, str, tuple[str, str | None], bool, str]]:
        """What is the same in the places of all domains: name in the plain network, ..."""
        found = []
        for path, tensor in self.tensors:
            shared_slot, own_slot = (f"{path}.{slot}" for slot in self.slots(path, tensor))
            slots = shared_slot, None if self.counts(path, tensor) else own_slot
            inner, attribute = split_name(tensor)
            buffer = attribute in self.skeletons[path].get_submodule(inner)._buffers
            found.append((f"{path}.{tensor}", path, tensor, slots, buffer, attribute))
        return found

    def lent(self, parts: Mapping[str, Tensor]) -> "Holders":
        """Holders of a domain's tensors that no module has.

        Args:
            parts: By the names of the plain network.
        """
        by_module: dict[str, dict[str, Tensor]] = {}
        found = {}
        for name, *_, attribute in self._spots:
            if name in parts:
                found[name] = holder = by_module.setdefault(split_name(name)[0], {})
                holder[attribute] = parts[name]
        return found

    def runs_itself(self, path: str) -> bool:
        """Whether the layer has a forward or hooks of its own, and so runs as the class it is."""
        return not runs_as(self.skeletons[path], STANDARD)

    def counts(self, path: str, name: str) -> bool:
        """Whether a tensor counts the batches of a batch norm that runs several domains at once."""
        return name == "num_batches_tracked" and not self.runs_itself(path)

    def write_back(
        self,
        operands: Mapping[str, Tensor],
        domains: "Sequence[list[Split]]",
        states: "Mapping[str, Sequence[NormState]]",
    ) -> None:
        """Count a batch, and write running statistics that were stacked back to their domains."""
        for splits in zip(*domains, strict=True):
            first = splits[0]
            if not first.buffer or not any(state.training for state in states[first.path]):
                continue
            if (slot := first.own_slot) is None:
                for state in states[first.path]:
                    # Where momentum is None the executor has counted, as it reads the count.
                    if state.training and state.momentum is not None:
                        state.batches.add_(1)  # type: ignore[union-attr]
            elif len(splits) > 1 and first.own is not None:
                for split, row in zip(splits, operands[slot].unbind(), strict=True):
                    # Not seen by autograd, as what batch norm itself writes: the backward of an
                    # earlier forward holds these tensors, and in train mode does not read them.
                    split.own.data.copy_(row)  # type: ignore[union-attr]

    def operands(self, domains: "Sequence[list[Split]]", classes: int) -> dict[str, Tensor]:
        """What the executors run on: shared parts as they are, own ones stacked (K, ...).

        Args:
            domains: From `splits_of`, one a row of the stacks.
            classes: Rows of every head.
        """
        out: dict[str, Tensor] = {}
        rows: dict[str, list[Tensor]] = {}
        for first, *others in zip(*domains, strict=True):
            at_head = first.path == self.head
            if (shared := first.shared) is not None:
                out[first.shared_slot] = shared[:classes] if at_head else shared
            if (own := first.own) is not None and first.own_slot is not None:
                row = [own, *(split.own for split in others)]
                rows[first.own_slot] = [resized(t, classes) for t in row] if at_head else row  # type: ignore[misc]
        return out | stack(rows)

    def executor(self, path: str) -> DomainLayer:
        """What runs in the layer's place."""
        layer = copy.deepcopy(self.skeletons[path])
        slots = {name: self.slots(path, name) for name in self.names[path]}
        if self.runs_itself(path) or (path == self.head and self.shared_head):
            return DomainModule(layer, slots, path, self.own.get(path, ()))
        if isinstance(layer, nn.Linear):
            return DomainLinear(layer, slots)
        if path in self.norms:
            return DomainBatchNorm(layer, slots, path)
        return DomainConv(layer, slots, self.own.get(path, ()))

    def holder(self, path: str, parts: Mapping[str, Tensor]) -> nn.Module:
        """A layer of the plain one's class that holds the part of its tensors that one has.

        It never runs; what looks for layers by class (to initialise or freeze them, for groups of
        an optimizer) finds it.

        Args:
            path: The layer's.
            parts: By names in the layer.
        """
        layer = filled(self.skeletons[path], parts)
        for hooks in (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_hooks):
            hooks.clear()
        return layer

    @property
    def images_apart(self) -> bool:
        """Whether in eval mode no image depends on others: the norms keep running statistics."""
        return all("running_mean" in self.names[path] for path in self.norms)

    def slots(self, path: str, name: str) -> tuple[str, str]:
        """Names of the slots for the shared and the own part of a tensor."""
        flat = name.replace(".", "_")
        return f"shared_{flat}", f"own_{flat}"

    def convolution(self, path: str, filters: int) -> nn.Module | None:
        """The convolution with `filters` of its filters, without tensors; None if it is no such."""
        layer: Any = copy.deepcopy(self.skeletons[path])
        if path not in self.own or (layer.groups > 1 and filters != layer.out_channels):
            return None
        layer.out_channels = filters
        return layer

    def classifier(self, classes: int) -> nn.Module:
        """The plain head with that many classes, without its tensors."""
        return with_filters(copy.deepcopy(self.skeletons[self.head]), classes)


def _check_alone(path: str, layer: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Refuse a layer that is not all that computes what it gives.

    Raises:
        ValueError: See `Layout.of`.
    """
    inside = [other for other in layers if other.startswith(f"{path}.")]
    if inside:
        raise ValueError(
            f"layer {inside[0]!r} lies in layer {path!r}, a {type(layer).__name__}, and domains "
            "cannot own both; plan with masks or shared_norms that leave one out"
        )
    for function in (*vars(layer).values(), *hooks_of(layer)):
        if held := _held_module(function):
            raise ValueError(
                f"layer {path!r} has the function {getattr(function, '__qualname__', function)!r}, "
                f"which holds a {type(held).__name__}, and so would use its tensors, not those "
                "that domains own; make it the forward of a subclass, or a hook that takes the "
                "layer from its arguments"
            )


def _held_module(function: Any) -> Any:
    """A module or parameter among what a function closes over, which a copy of it keeps."""
    if not isinstance(function, FunctionType):
        return None
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    for value in (
        *cells,
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
    ):
        held = value.__self__ if isinstance(value, MethodType) else value
        if isinstance(held, nn.Module | nn.Parameter):
            return held
        if found := _held_module(value):
            return found
    return None


def with_filters(layer: Any, filters: int) -> nn.Module:
    """The convolution or linear layer, its number of outputs set, in place."""
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", filters)
    return layer


def filled(outline: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a layer that lacks its tensors, with these."""
    layer = copy.deepcopy(outline)
    if not isinstance(layer, _BatchNorm) and "weight" in tensors:
        with_filters(layer, len(tensors["weight"]))
    fill(layer, {name: (name,) for name in tensors}, tensors)
    return layer


Holders = Mapping[str, dict[str, Any]]
"""Name in the plain network -> the dictionary that holds that tensor, by its name in the module."""


class Split(NamedTuple):
    """A tensor of the plain network and where its two parts are.

    Attributes:
        path: Of its layer.
        tensor: Its name in the layer.
        shared_in: A module's own dictionary that holds the shared part; None if there is none.
        own_in: The same for the part of one domain.
        shared_slot: Where an executor finds the shared part.
        own_slot: Where it finds the stacked own parts; None if it needs none.
        buffer: Whether it is one of the layer's buffers, which are all own.
        attribute: The last part of `tensor`, its key in both dictionaries.
    """

    path: str
    tensor: str
    shared_in: dict[str, Any] | None
    own_in: dict[str, Any] | None
    shared_slot: str
    own_slot: str | None
    buffer: bool
    attribute: str

    @property
    def name(self) -> str:
        """In the plain network."""
        return f"{self.path}.{self.tensor}"

    @property
    def shared(self) -> Tensor | None:
        """The shared part, at present."""
        return None if self.shared_in is None else self.shared_in[self.attribute]

    @property
    def own(self) -> Tensor | None:
        """The domain's part, at present."""
        return None if self.own_in is None else self.own_in[self.attribute]


def holders(root: nn.Module) -> Holders:
    """The modules' own dictionaries, read hundreds of times a call, so not through attributes."""
    return {
        f"{path}.{name}": held
        for path, module in root.named_modules()
        for held in (module._parameters, module._buffers)
        for name, tensor in held.items()
        if tensor is not None
    }


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
            learnt = any(tensor.requires_grad for tensor in tensors)  # of some domains, frozen
            sorts.setdefault((tensors[0].dtype, learnt), []).append(name)
    for names in sorts.values():
        flat = torch.cat(
            [t if t.dim() == 1 else t.reshape(-1) for name in names for t in rows[name]]
        )
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
