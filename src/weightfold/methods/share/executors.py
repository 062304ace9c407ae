"""Layers that run several domains at once: what a chart puts in the place of a plain layer.

Each is given tensors with a leading axis of K domains. A batch of K domains with equally many
images is interleaved (see `Mixture`), and reading it as (B / K, K * C, ...) costs nothing: one
grouped call serves all domains. Unequal counts run domain by domain.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from weightfold.core.mixins import NO_CONTEXT
from weightfold.methods.share.mixture import Mixture

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class DomainLayer(nn.Module):
    """A layer whose tensors have a leading axis of domains.

    Attributes:
        at: Per-call coordinates; `domain` is a name or a `Mixture`.
        kernel: "grouped" runs interleaved domains in one call, "segments" one after another.
    """

    def __init__(self, *slots: str) -> None:
        super().__init__()
        self.at: Mapping[str, Any] = NO_CONTEXT
        self.kernel: Literal["grouped", "segments"] = "grouped"
        for slot in slots:
            self.register_parameter(slot, None)

    def forward(self, x: Tensor) -> Tensor:
        """Run every image with its own domain's tensors; shapes as in the plain layer."""
        domain = self.at.get("domain")
        if isinstance(domain, Mixture) and len(domain.domains) > 1:
            if self.one_by_one or not domain.equal:
                parts = enumerate(domain.part(x))
                return domain.join(
                    [self.run_interleaved(part, slice(k, k + 1), 1) for k, part in parts]
                )
            return self.run_interleaved(x, slice(None), len(domain.domains))
        return self.run_interleaved(x, slice(1), 1)

    @property
    def one_by_one(self) -> bool:
        """Whether interleaved domains run one after another, too."""
        return self.kernel == "segments"

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Interleaved images, image i of domain i mod `count`, with the tensors of these rows."""
        raise NotImplementedError


def interleaved(x: Tensor, count: int) -> Tensor:
    """(B, C, ...) as (B / count, count * C, ...), without a copy where x is contiguous."""
    return x if count == 1 else x.reshape(x.shape[0] // count, -1, *x.shape[2:])


def restored(x: Tensor, batch: int) -> Tensor:
    """Inverse of `interleaved`.

    No view, so that an in-place activation after it is not recorded as a write into a view, which
    autograd pays for with copies.
    """
    if x.shape[0] == batch:
        return x
    return torch.ops.aten._unsafe_view(x.contiguous(), [batch, -1, *x.shape[2:]])


class DomainConv(DomainLayer):
    """A convolution some of whose filters each domain owns.

    Args:
        layer: The plain convolution; its hyperparameters are taken.
        own: True for each filter the domains own; empty where they own all of any number.
    """

    shared: Tensor | None
    own: Tensor
    shared_bias: Tensor | None
    own_bias: Tensor | None

    def __init__(self, layer: Any, own: list[bool]) -> None:
        super().__init__("shared", "own", "shared_bias", "own_bias")
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.stride, self.dilation, self.groups = layer.stride, layer.dilation, layer.groups
        self.padding, self.kernel_size = layer.padding, layer.kernel_size
        self.padding_mode, self._pads = layer.padding_mode, layer._reversed_padding_repeated_twice
        self.runs = runs_of(own)

    @property
    def weight(self) -> Tensor | None:
        """Kernels of the call's first domain, for code around the layer that reads their dtype."""
        if self.own is None or self.shared is None:
            return self.own if self.own is None else self.own[0]
        return interlace(self.shared, self.own[0], self.runs, 0)

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Shared filters once for all images; own filters in one grouped convolution."""
        own, own_bias = self.own[rows], _at(self.own_bias, rows)
        x = self._padded(x)
        if self.shared is None:
            return self._grouped(x, own, own_bias)
        if count == 1 or self.groups > 1:
            weight, bias = self._assembled(own, own_bias)
            return self._grouped(x, weight, bias)
        shared = self._convolve(x, self.shared, self.shared_bias, 1)
        return interlace(shared, self._grouped(x, own, own_bias), self.runs, 1)

    def _assembled(self, own: Tensor, own_bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Whole kernels (K, O, ...) of the plain layer."""
        assert self.shared is not None
        shared = self.shared.expand(len(own), *self.shared.shape)
        weight = interlace(shared, own, self.runs, 1)
        if own_bias is None or self.shared_bias is None:
            return weight, None
        return weight, interlace(self.shared_bias.expand(len(own), -1), own_bias, self.runs, 1)

    def _grouped(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        count = len(weight)
        bias = None if bias is None else bias.flatten()
        y = self._convolve(interleaved(x, count), weight.flatten(0, 1), bias, count)
        return restored(y, len(x))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, count: int) -> Tensor:
        padding = self.padding if self.padding_mode == "zeros" else 0
        groups = self.groups * count
        convolve: Any = CONVOLVE[weight.dim() - 2]
        return convolve(x, weight, bias, self.stride, padding, self.dilation, groups)

    def _padded(self, x: Tensor) -> Tensor:
        zeros = self.padding_mode == "zeros"
        return x if zeros else F.pad(x, self._pads, mode=self.padding_mode)


class DomainLinear(DomainLayer):
    """A linear classifier of each domain.

    Args:
        layer: The plain layer; its hyperparameters are taken.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__("weight", "bias")
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Features (B, ..., F) to logits (B, ..., classes)."""
        weight, bias = self.weight[rows], _at(self.bias, rows)
        if count == 1:
            return F.linear(x, weight[0], None if bias is None else bias[0])
        y = torch.einsum("nk...f,kcf->nk...c", x.unflatten(0, (-1, count)), weight)
        if bias is not None:
            y = y + bias[(slice(None), *(None,) * (y.dim() - 3))]
        return y.flatten(0, 1)


class DomainBatchNorm(DomainLayer):
    """Batch norm with the affine and the statistics of each domain.

    Args:
        layer: The plain layer; its hyperparameters are taken.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    slots = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def __init__(self, layer: Any) -> None:
        super().__init__(*self.slots[:2])
        for slot in self.slots[2:]:
            self.register_buffer(slot, None)
        self.eps, self.momentum = layer.eps, layer.momentum
        self.num_features, self.affine = layer.num_features, layer.affine
        self.track_running_stats = layer.track_running_stats

    @property
    def one_by_one(self) -> bool:
        """Domains that have seen different numbers of batches differ in what None stands for."""
        return super().one_by_one or (self.training and self.momentum is None)

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """One batch norm over K * C channels; running statistics are updated in place.

        Batches are counted here where momentum is None, and so reads them; else by the chart.
        """
        weight, bias, mean, var, tracked = (_at(getattr(self, slot), rows) for slot in self.slots)
        momentum = self.momentum
        if self.training and momentum is None and tracked is not None:
            momentum = 1.0 / float(tracked.add_(1)[0])
        flat = [None if t is None else t.flatten() for t in (mean, var, weight, bias)]
        mean, var, weight, bias = flat
        batch_statistics = self.training or mean is None
        momentum = 0.0 if momentum is None else momentum
        y = F.batch_norm(
            interleaved(x, count), mean, var, weight, bias, batch_statistics, momentum, self.eps
        )
        return restored(y, len(x))


class DomainModule(DomainLayer):
    """A layer with a forward or hooks of its own, which runs domain by domain as the class it is.

    Args:
        layer: The plain layer without its tensors.
        slots: Name of a tensor in it -> slots of the shared and of the own part.
        own: True for each filter the domains own; empty where they own the layer.
    """

    def __init__(
        self, layer: nn.Module, slots: Mapping[str, tuple[str, str]], own: Sequence[bool]
    ) -> None:
        super().__init__(*(slot for pair in slots.values() for slot in pair))
        self.layer, self.tensors, self.runs = layer, dict(slots), runs_of(own)

    @property
    def one_by_one(self) -> bool:
        """Always: the layer knows no domains."""
        return True

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Images of one domain."""
        given: dict[str, Tensor] = {}
        for name, slots in self.tensors.items():
            shared, own = (getattr(self, slot) for slot in slots)
            own = None if own is None else own[rows][0]
            if shared is not None and own is not None:
                given[name] = interlace(shared, own, self.runs, 0)
            elif shared is not None or own is not None:
                given[name] = shared if own is None else own
        tensors = dict(given)
        out = functional_call(self.layer, tensors, (x,), tie_weights=False)
        for name, tensor in given.items():  # buffers that its forward replaced
            if tensors[name] is not tensor:
                tensor.copy_(tensors[name])
        return out


def runs_of(mask: Sequence[bool]) -> list[tuple[bool, int]]:
    """Runs of equal values and their lengths."""
    return [(own, len(list(run))) for own, run in itertools.groupby(mask)]


def interlace(shared: Tensor, own: Tensor, runs: Sequence[tuple[bool, int]], dim: int) -> Tensor:
    """Shared and own filters along `dim`, in the order in which `runs` takes them."""
    pieces = {
        kind: iter(tensor.split([n for own_run, n in runs if own_run == kind], dim))
        for kind, tensor in ((False, shared), (True, own))
    }
    return torch.cat([next(pieces[kind]) for kind, _ in runs], dim)


def _at(tensor: Tensor | None, rows: slice) -> Tensor | None:
    return None if tensor is None else tensor[rows]
