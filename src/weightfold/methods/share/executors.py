"""Layers that run several domains at once: what a chart puts in the place of a plain layer.

Each is given tensors with a leading axis of K domains. A batch of K domains with equally many
images is interleaved (see `Mixture`), and reading it as (B / K, K * C, ...) costs nothing: one
grouped call serves all domains. Unequal counts run domain by domain.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from weightfold.core.mixins import NO_CONTEXT
from weightfold.methods.share.mixture import Mixture

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class NormState(NamedTuple):
    """How the batch norm of one domain runs: what that domain's own layer says.

    Attributes:
        training: Batch statistics, which move the running ones.
        momentum: Of the running statistics; None: their mean over all batches.
        eps: Added to the variance.
        batches: The domain's counter of batches; None if it has none.
    """

    training: bool
    momentum: float | None
    eps: float
    batches: Tensor | None


class DomainLayer(nn.Module):
    """A layer whose own tensors have a leading axis of domains.

    Attributes of the plain layer can be read from it. A tensor of the plain layer can while the net
    runs one domain; in a mixture its values are NaN, as each image has others.

    Args:
        layer: The plain layer without its tensors; no submodule, as it does not run as it is.
        slots: Name of a tensor in it -> slots of the shared and of the own part.

    Attributes:
        at: Per-call coordinates; `domain` is a name or a `Mixture`, `norms` has for each batch norm
            the `NormState` of each domain.
        kernel: "grouped" runs interleaved domains in one call, "segments" one after another.
    """

    def __init__(self, layer: nn.Module, slots: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self.at: Mapping[str, Any] = NO_CONTEXT
        self.kernel: Literal["grouped", "segments"] = "grouped"
        self.tensors = dict(slots)
        for slot in (slot for pair in slots.values() for slot in pair):
            self.register_parameter(slot, None)
        self.__dict__["layer"] = layer

    def __getattr__(self, name: str) -> Any:
        """Of the plain layer, what is no slot or module here."""
        known = self.__dict__
        for kind in ("_parameters", "_buffers", "_modules"):
            if name in known.get(kind, ()):
                return known[kind][name]
        if "layer" not in known or name.startswith("__"):
            raise AttributeError(name)
        return self._value(name) if name in self.tensors else getattr(known["layer"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would change nothing: settings of the plain layer."""
        known = self.__dict__
        plain = known.get("layer")
        if (
            plain is not None
            and name not in known
            and (name in vars(plain) or name in self.tensors)
        ):
            raise AttributeError(
                f"{name!r} of this {type(plain).__name__} cannot be set: domains own the "
                "layer; set it before wf.share, or of a batch norm in net.sharing.domains"
            )
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """The class of the plain layer."""
        return type(self.layer).__name__

    def forward(self, x: Tensor) -> Tensor:
        """Run every image with its own domain's tensors; shapes as in the plain layer."""
        if self.tensors and all(slot is None for slot in self._parameters.values()):
            raise RuntimeError(
                f"a {type(self.layer).__name__} that domains own was called outside the net, where "
                "its tensors do not exist. Activation checkpointing inside the model does that in "
                "backward: checkpoint the net as a whole instead"
            )
        domain = self.at.get("domain")
        if isinstance(domain, Mixture) and len(domain.domains) > 1:
            domain.check(x)
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

    def parts(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """The shared part of a tensor, and the own ones (K, ...)."""
        shared, own = self.tensors[name]
        return self._parameters[shared], self._parameters[own]

    def own(self, name: str, rows: slice) -> Tensor | None:
        """Own parts of these domains; None if there are none, or the layer has no such tensor."""
        own = self.parts(name)[1] if name in self.tensors else None
        return None if own is None else own[rows]

    def whole(self, name: str, row: int) -> Tensor | None:
        """The plain layer's tensor of one domain."""
        shared, own = self.parts(name)
        if shared is None or own is None:
            return shared if own is None else own[row]
        return interlace(shared, own[row], self.runs, 0)

    def _value(self, name: str) -> Tensor | None:
        value = self.whole(name, 0) if self.at is not NO_CONTEXT else None
        if value is None:
            raise AttributeError(
                f"{name!r} of a {type(self.layer).__name__} that domains own exists only while the "
                "net runs; before it, read net.theta({'domain': ...}), change what is in "
                "net.sharing.domains, or initialise the plain network before wf.share"
            )
        mixed = isinstance(self.at.get("domain"), Mixture) and self.parts(name)[1] is not None
        return torch.full_like(value, torch.nan) if mixed and value.is_floating_point() else value


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
        layer: The plain convolution.
        slots: As in `DomainLayer`.
        own: True for each filter the domains own; empty where they own all of any number.
    """

    def __init__(
        self, layer: Any, slots: Mapping[str, tuple[str, str]], own: Sequence[bool]
    ) -> None:
        super().__init__(layer, slots)
        self.runs = runs_of(own)

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Shared filters once for all images; own filters in one grouped convolution."""
        own, own_bias = self.own("weight", rows), self.own("bias", rows)
        assert own is not None
        shared = self.parts("weight")[0]
        x = self._padded(x)
        if shared is None:
            return self._grouped(x, own, own_bias)
        shared_bias = None if own_bias is None else self.parts("bias")[0]
        if count == 1 or self.layer.groups > 1:
            weight = interlace(shared.expand(len(own), *shared.shape), own, self.runs, 1)
            if own_bias is not None and shared_bias is not None:
                shared_biases = shared_bias.expand(len(own), -1)
                own_bias = interlace(shared_biases, own_bias, self.runs, 1)
            return self._grouped(x, weight, own_bias)
        whole = self._convolve(x, shared, shared_bias, 1)
        return interlace(whole, self._grouped(x, own, own_bias), self.runs, 1)

    def _grouped(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        count = len(weight)
        bias = None if bias is None else bias.flatten()
        y = self._convolve(interleaved(x, count), weight.flatten(0, 1), bias, count)
        return restored(y, len(x))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, count: int) -> Tensor:
        layer = self.layer
        padding = layer.padding if layer.padding_mode == "zeros" else 0
        groups = layer.groups * count
        convolve: Any = CONVOLVE[weight.dim() - 2]
        return convolve(x, weight, bias, layer.stride, padding, layer.dilation, groups)

    def _padded(self, x: Tensor) -> Tensor:
        layer = self.layer
        if layer.padding_mode == "zeros":
            return x
        return F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)


class DomainLinear(DomainLayer):
    """A linear classifier of each domain."""

    runs: Sequence[tuple[bool, int]] = ()

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Features (B, ..., F) to logits (B, ..., classes)."""
        weight, bias = self.own("weight", rows), self.own("bias", rows)
        assert weight is not None
        if count == 1:
            return F.linear(x, weight[0], None if bias is None else bias[0])
        y = torch.einsum("nk...f,kcf->nk...c", x.unflatten(0, (-1, count)), weight)
        if bias is not None:
            y = y + bias[(slice(None), *(None,) * (y.dim() - 3))]
        return y.flatten(0, 1)


class DomainNorm(DomainLayer):
    """A batch norm that each domain owns, affine and statistics.

    Args:
        layer: The plain layer.
        slots: As in `DomainLayer`.
        path: Where it is, under which `at` has its states.
    """

    runs: Sequence[tuple[bool, int]] = ()

    def __init__(self, layer: Any, slots: Mapping[str, tuple[str, str]], path: str) -> None:
        super().__init__(layer, slots)
        self.path = path

    def states(self, rows: slice) -> Sequence[NormState]:
        """How each of these domains runs."""
        given = self.at.get("norms")
        if given is not None:
            return given[self.path][rows]
        return [NormState(self.training, self.layer.momentum, self.layer.eps, None)]

    @property
    def one_by_one(self) -> bool:
        """Domains whose batch norms differ, in what None stands for at least, run in turn."""
        first, *others = self.states(slice(None))
        differ = any(state[:3] != first[:3] for state in others)  # all but the counters
        return super().one_by_one or differ or (first.training and first.momentum is None)


class DomainBatchNorm(DomainNorm):
    """Batch norms of several domains in one."""

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """One batch norm over K * C channels; running statistics are updated in place.

        Batches are counted here where momentum is None, and so reads them; else by the chart.
        """
        names = ("running_mean", "running_var", "weight", "bias")
        tensors = [self.own(name, rows) for name in names]
        mean, var, weight, bias = (None if t is None else t.flatten() for t in tensors)
        training, momentum, eps, batches = self.states(rows)[0]
        if training and momentum is None and batches is not None:
            momentum = 1.0 / float(batches.add_(1))
        batch_statistics = training or mean is None
        momentum = 0.0 if momentum is None else momentum
        y = F.batch_norm(
            interleaved(x, count), mean, var, weight, bias, batch_statistics, momentum, eps
        )
        return restored(y, len(x))


class DomainModule(DomainNorm):
    """A layer with a forward or hooks of its own, which runs domain by domain as the class it is.

    Args:
        layer: The plain layer.
        slots: As in `DomainLayer`.
        path: Where it is; has states in `at` if it is a batch norm.
        own: True for each filter the domains own; empty where they own the layer.
    """

    def __init__(
        self,
        layer: nn.Module,
        slots: Mapping[str, tuple[str, str]],
        path: str,
        own: Sequence[bool],
    ) -> None:
        super().__init__(layer, slots, path)
        self.runs = runs_of(own)

    @property
    def one_by_one(self) -> bool:
        """The layer knows no domains: always, unless all share it."""
        return any(self.parts(name)[1] is not None for name in self.tensors)

    def train(self, mode: bool = True) -> "DomainModule":
        """As of every module, and the layer inside."""
        self.layer.train(mode)
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> "DomainModule":
        self.layer._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def run_interleaved(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Images of one domain, or of all that share the layer."""
        whole = {name: self.whole(name, rows.start or 0) for name in self.tensors}
        given = {name: tensor for name, tensor in whole.items() if tensor is not None}
        if self.path in self.at.get("norms", ()):
            layer: Any = self.layer
            state = self.states(rows)[0]
            layer.train(state.training)
            layer.momentum, layer.eps = state.momentum, state.eps
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
