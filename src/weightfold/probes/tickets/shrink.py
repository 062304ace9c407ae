"""`wf.shrink`: a pruned network as a smaller dense one, without the channels that died."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.arguments import check_values, unwrapped
from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.summary import compare_outputs
from weightfold.probes.tickets.channels import Reader, Wire, layer_graph, wires


@dataclass(frozen=True)
class Dead:
    """What becomes of the dead channels of a layer.

    Attributes:
        layer: Path of the Linear layer or convolution whose outputs they are.
        removed: Channels that `shrink` removes.
        kept: Channels without incoming weights that stay.
        reason: Why; "" if none stays.
    """

    layer: str
    removed: int
    kept: int = 0
    reason: str = ""


def shrink(model: nn.Module, example: Tensor) -> nn.Module:
    """A smaller dense network that computes the same in eval mode.

    An output channel (of a Conv2d with groups=1) or unit (of a Linear) goes if no layer has a
    weight that reads it, or if it has no incoming weight and so is constant: what it adds to the
    layers that read it goes into their biases. Channels are followed through batch norms,
    elementwise activations, pooling, dropout and flatten. Those that anything else reads (sums of
    branches, concatenations, grouped convolutions, a view to a fixed size, the network's output)
    stay. So does a constant that is not 0 where a convolution pads its input, because the padding
    is 0. `dead_channels` tells which and why.

    >>> import torch, weightfold as wf
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> _ = net[0].weight.data[:2].zero_()
    >>> wf.shrink(net, torch.zeros(1, 3))[0]
    Linear(in_features=3, out_features=2, bias=True)

    Args:
        model: A network, or a Charted net, which is deployed first; left unchanged.
        example: Inputs that the network takes, (B, ...).

    Returns:
        A copy in eval mode, of the same class, with smaller layers, some of which may have got a
        bias; with nothing removed where torch.fx cannot trace the network.

    Raises:
        TypeError: `example` is no tensor, or `model` no module.
        ValueError: `example` does not run through the model; or this computes something else with
            the channels gone, because its forward reads a width of theirs.
    """
    return _shrunk(model, example)[0]


def dead_channels(model: nn.Module, example: Tensor) -> list[Dead]:
    """What `shrink` removes, and what without incoming weights it keeps, by layer as they run.

    Args:
        model: As for `shrink`.
        example: As for `shrink`.

    Raises:
        TypeError: As `shrink`.
        ValueError: As `shrink`.
    """
    return _shrunk(model, example)[1]


@torch.no_grad()
def _shrunk(model: nn.Module, example: Tensor) -> tuple[nn.Module, list[Dead]]:
    if not isinstance(example, Tensor):
        raise TypeError(f"example is a {type(example).__name__}; give a tensor of inputs")
    model = unwrapped(model, "model")
    check_values(model, "model")
    net = (model.deploy() if isinstance(model, Charted) else copied(model)).eval()
    try:
        expected = net(example)
    except Exception as error:
        raise ValueError(
            f"example of shape {tuple(example.shape)} does not run through the model ({error}); "
            "give a batch of what the model takes"
        ) from error
    removed: dict[str, int] = {}
    while True:
        try:
            graph = layer_graph(net)
        except ValueError as error:
            return net, _untraced(net, str(error))
        cuts = [_Cut(wire) for wire in wires(net, graph, example)]
        for cut in cuts:
            removed[cut.wire.path] = removed.get(cut.wire.path, 0) + int(cut.gone.sum())
        if not any(cut.gone.any() for cut in cuts):
            _check_function(net, example, expected, removed)
            dead = [Dead(c.wire.path, removed[c.wire.path], c.kept, c.reason) for c in cuts]
            return net, [d for d in dead if d.removed or d.kept]
        # All constants are folded before a weight is cut: the readers are of full size then.
        for cut in cuts:
            cut.fold()
        for cut in cuts:
            cut.apply()


def _check_function(
    net: nn.Module, example: Tensor, expected: Any, removed: Mapping[str, int]
) -> None:
    """Hold a network with channels removed against what it computed before."""
    cut = [path for path, count in removed.items() if count]
    if not cut:
        return
    try:
        found = compare_outputs("", net(example), expected).relative
        reason = f"a relative difference of {found:.1e}"
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        found, reason = inf, str(error)
    dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    # Constants go into biases, which rounds: by less than half the digits.
    if found > torch.finfo(dtype).eps ** 0.5:
        raise ValueError(
            f"model={type(net).__name__} computes something else without dead channels of "
            f"{', '.join(cut[:5])} ({reason}): its forward reads a width of theirs; mask the "
            "network, or let forward take widths from its inputs"
        )


class _Cut:
    """The channels that go from a wire.

    Attributes:
        wire: The wire.
        gone: Bool (C,).
        kept: Channels without incoming weights that stay.
        reason: Why they do.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire, self.reason = wire, ""
        self._constant = ~wire.layer.weight.flatten(1).any(dim=1)
        self._read = torch.zeros_like(self._constant)
        for reader in wire.readers:
            self._read |= _weights_by_channel(reader).any(dim=0)
        self.gone = self._constant | ~self._read
        if wire.pinned:
            self._keep(self.gone, wire.pinned)
        for reader in wire.readers:
            reads = self._constant & _weights_by_channel(reader).any(dim=0)
            if isinstance(reader.layer, nn.Conv2d) and reads.any():
                self._keep(
                    reads & ~_foldable(reader),
                    "a convolution with padding reads their constant, which is not 0",
                )
        if self.gone.all():
            first = torch.arange(len(self.gone), device=self.gone.device) == 0
            self._keep(first, "a layer has at least one channel")
        self.kept = int((self._constant & ~self.gone).sum())
        self.reason = self.reason if self.kept else ""

    def _keep(self, channels: Tensor, reason: str) -> None:
        if (self.gone & channels).any():
            self.gone = self.gone & ~channels
            self.reason = self.reason or reason

    def fold(self) -> None:
        """Add what the constants that go contribute to the biases of the layers that read them."""
        folded = self._constant & self._read & self.gone
        if not folded.any():
            return
        for reader in self.wire.readers:
            layer, weight = reader.layer, reader.layer.weight.double()
            if isinstance(layer, nn.Conv2d):
                constants = reader.value[0].double().mean(dim=(1, 2))[folded]
                added = weight.sum(dim=(2, 3))[:, folded] @ constants
            else:
                inputs = folded.repeat_interleave(reader.inner)
                added = weight[:, inputs] @ reader.value[0].double()[inputs]
            before = 0.0 if layer.bias is None else layer.bias.double()
            layer.bias = nn.Parameter(
                (before + added).to(layer.weight.dtype), layer.weight.requires_grad
            )

    def apply(self) -> None:
        """Cut the channels out of the layer, the batch norms and the layers that read them."""
        if not self.gone.any():
            return
        layer, keep = self.wire.layer, ~self.gone
        _select(layer, ("weight", "bias"), 0, keep)
        _resize(layer, "out", int(keep.sum()))
        for norm, inner in self.wire.norms:
            features = keep.repeat_interleave(inner)
            _select(norm, ("weight", "bias", "running_mean", "running_var"), 0, features)
            norm.num_features = int(features.sum())
        for reader in self.wire.readers:
            inputs = keep.repeat_interleave(reader.inner)
            _select(reader.layer, ("weight",), 1, inputs)
            _resize(reader.layer, "in", int(inputs.sum()))


def _weights_by_channel(reader: Reader) -> Tensor:
    """Whether output o has a weight on channel c of the wire; bool (O, C)."""
    weight = reader.layer.weight != 0
    if isinstance(reader.layer, nn.Conv2d):
        return weight.flatten(2).any(dim=2)
    return weight.unflatten(1, (-1, reader.inner)).any(dim=2)


def _foldable(reader: Reader) -> Tensor:
    """Channels whose value of the example, if it is constant, a bias can stand for; bool (C,)."""
    maps = reader.value[0].flatten(1)
    if reader.layer.padding not in ("valid", (0, 0)):
        return ~maps.any(dim=1)
    low, high = maps.aminmax(dim=1)
    # Average pooling rounds.
    return (high - low) <= 16 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())


def _select(module: nn.Module, names: tuple[str, ...], axis: int, keep: Tensor) -> None:
    """Replace tensors of a module by those of their entries along an axis that `keep` marks."""
    index = keep.nonzero()[:, 0]
    for name in names:
        tensor = getattr(module, name)
        if isinstance(tensor, nn.Parameter):
            chosen = tensor.detach().index_select(axis, index)
            setattr(module, name, nn.Parameter(chosen, tensor.requires_grad))
        elif tensor is not None:
            setattr(module, name, tensor.index_select(axis, index))


def _resize(layer: nn.Linear | nn.Conv2d, side: str, size: int) -> None:
    noun = "channels" if isinstance(layer, nn.Conv2d) else "features"
    setattr(layer, f"{side}_{noun}", size)


def _untraced(net: nn.Module, reason: str) -> list[Dead]:
    """The dead channels of a network that stays as it is."""
    found = []
    for path, layer in net.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            constant = int((~layer.weight.flatten(1).any(dim=1)).sum())
            if constant:
                found.append(Dead(path, 0, constant, reason))
    return found
