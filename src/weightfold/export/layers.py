"""Layers of exported graphs: plain ones, filled with what one domain or several hold."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from weightfold.core.slots import runs_as
from weightfold.methods.share.chart import Sharing
from weightfold.methods.share.layout import STANDARD, filled


class Route:
    """How a batch, sorted by domain, is divided: `RoutedNet` writes it, its layers read it.

    Attributes:
        ids: int64 (B,), ascending.
        places: For each domain, int64 positions of its images in the batch; may be empty.
    """

    ids: Tensor
    places: Sequence[Tensor] = ()


class Segments(nn.Module):
    """Each domain's images run through the domain's own layer.

    Args:
        layers: One a domain.
        route: Of the batch.
    """

    def __init__(self, layers: Iterable[nn.Module], route: Route) -> None:
        super().__init__()
        self.layers, self.route = nn.ModuleList(layers), route

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...), sorted by domain."""
        # Not a split by sizes: exporters turn that into slices whose sizes grow layer by layer.
        parts = [x.index_select(0, place) for place in self.route.places]
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)])


class Joined(nn.Module):
    """Puts shared and own filters, or what they give, in the order of the plain layer.

    Args:
        mask: True for each filter that is own.
    """

    order: Tensor | None

    def __init__(self, mask: Sequence[bool]) -> None:
        super().__init__()
        # Where each kind is one run, as in bottom and top plans, there is nothing to pick.
        self.own_first = mask[0]
        order = torch.tensor([own != mask[0] for own in mask]).argsort(stable=True).argsort()
        in_order = torch.equal(order, torch.arange(len(mask)))
        self.register_buffer("order", None if in_order else order)

    def forward(self, shared: Tensor, own: Tensor, dim: int) -> Tensor:
        """Both along `dim`."""
        whole = torch.cat([own, shared] if self.own_first else [shared, own], dim)
        return whole if self.order is None else whole.index_select(dim, self.order)


class SplitConv(nn.Module):
    """A convolution, not grouped: shared filters once for all images, then each domain's own.

    Args:
        shared: The shared filters, as a plain convolution.
        own: The other filters.
        mask: True for each filter that is own.
    """

    def __init__(self, shared: nn.Module, own: nn.Module, mask: Sequence[bool]) -> None:
        super().__init__()
        self.shared, self.own, self.joined = shared, own, Joined(mask)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to (B, filters, ...)."""
        return self.joined(self.shared(x), self.own(x), 1)


class JoinedConv(nn.Module):
    """A convolution whose kernel is joined from shared and own filters; runtimes fold that.

    Args:
        layer: The plain convolution, without its tensors.
        shared: Its shared filters and biases, by name; not copied.
        own: One domain's.
        mask: True for each filter that is own.
    """

    def __init__(
        self,
        layer: nn.Module,
        shared: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        mask: Sequence[bool],
    ) -> None:
        super().__init__()
        self.layer, self.joined = copy.deepcopy(layer).eval(), Joined(mask)
        self.plain = runs_as(layer, STANDARD)
        self.shared, self.own = (nn.ParameterDict(dict(part)) for part in (shared, own))

    def forward(self, x: Tensor) -> Tensor:
        """As the plain layer."""
        whole = {name: self.joined(self.shared[name], own, 0) for name, own in self.own.items()}
        if not self.plain:
            return functional_call(self.layer, whole, (x,), tie_weights=False)
        convolution: Any = self.layer
        return convolution._conv_forward(x, whole["weight"], whole.get("bias"))


class RoutedNorm(nn.Module):
    """Batch norms with running statistics, as one scale and one shift a domain and channel.

    Args:
        layers: One a domain.
        route: Of the batch.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, layers: Sequence[Any], route: Route) -> None:
        super().__init__()
        mean, variance = (
            torch.stack([getattr(n, f"running_{s}") for n in layers]).double()
            for s in ("mean", "var")
        )
        scale = (variance + layers[0].eps).rsqrt()
        shift = -mean * scale
        if layers[0].affine:
            weight, bias = (
                torch.stack([getattr(n, s) for n in layers]) for s in ("weight", "bias")
            )
            scale, shift = scale * weight, shift * weight + bias
        self.register_buffer("scale", scale.to(layers[0].running_mean.dtype))
        self.register_buffer("shift", shift.to(layers[0].running_mean.dtype))
        self.route = route

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...), sorted by domain."""
        axes = (..., *(None,) * (x.dim() - 2))
        scale, shift = (t.index_select(0, self.route.ids)[axes] for t in (self.scale, self.shift))
        return x * scale + shift


class Padding(nn.Module):
    """What a convolution puts around its images.

    Args:
        sizes: As `torch.nn.functional.pad` takes them.
        mode: "reflect", "replicate" or "circular".
    """

    def __init__(self, sizes: Sequence[int], mode: str) -> None:
        super().__init__()
        self.sizes, self.mode = list(sizes), mode

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same with larger axes."""
        return F.pad(x, self.sizes, mode=self.mode)


class PaddedHead(nn.Module):
    """A classifier with zeros for the classes it lacks.

    Args:
        layer: The classifier of one domain.
        missing: How many classes others have more.
    """

    def __init__(self, layer: nn.Module, missing: int) -> None:
        super().__init__()
        self.layer, self.missing = layer, missing

    def forward(self, x: Tensor) -> Tensor:
        """Classes are the last axis of a linear layer, the second of a convolution."""
        y = self.layer(x)
        axes = 0 if isinstance(self.layer, nn.Linear) else y.dim() - 2
        return F.pad(y, (0, 0) * axes + (0, self.missing)) if self.missing else y


def parts(sharing: Sharing, path: str, domain: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The shared and the own part of each tensor of a layer, by name."""
    splits = [split for split in sharing.splits[domain] if split.path == path]
    shared = {s.tensor: s.shared for s in splits if s.shared is not None}
    return shared, {s.tensor: s.own for s in splits if s.own is not None}


def layer_of(sharing: Sharing, path: str, domain: str) -> nn.Module:
    """What runs at `path` for one domain; tensors are not copied."""
    layout = sharing.layout
    shared, own = parts(sharing, path, domain)
    if shared and own:
        return JoinedConv(layout.skeletons[path], shared, own, layout.own[path])
    if path == layout.head:
        rows = sharing.classes[domain]
        cut = {n: nn.Parameter(t[:rows].detach()) for n, t in shared.items() if len(t) > rows}
        shared |= cut
    return filled(layout.skeletons[path], shared | own).eval()
