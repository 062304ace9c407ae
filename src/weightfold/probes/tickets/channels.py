"""Which layers write and which read each channel of a network, as far as torch.fx shows."""

import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightfold.core.slots import Slots, split_name

Layer = nn.Linear | nn.Conv2d

_LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)

# Each channel of the output depends on the same channel of the input alone.
CHANNELWISE = {
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    torch.relu, torch.sigmoid, torch.tanh,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish,
    F.sigmoid, F.tanh, F.softplus, F.hardtanh, F.hardswish, F.hardsigmoid,
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
    "relu", "relu_", "sigmoid", "tanh", "contiguous",
}  # fmt: skip
FLATTEN = {nn.Flatten, torch.flatten, "flatten"}
_RESHAPE = {"view", "reshape", torch.reshape}
_MEAN = {"mean", torch.mean}
_DROPOUT = {F.dropout, F.dropout1d, F.dropout2d}


@dataclass(frozen=True)
class Reader:
    """A layer that reads a wire.

    Attributes:
        layer: It.
        value: What it reads of the example, (1, C * inner, ...).
        inner: Inputs that a channel of the wire is, more than 1 behind a flatten.
    """

    layer: Layer
    value: Tensor
    inner: int


@dataclass
class Wire:
    """The output channels of a layer.

    Attributes:
        path: Path of the layer.
        layer: The layer that writes them.
        norms: Batch norms on the way, each with its features a channel.
        readers: Layers that read them.
        pinned: What else reads them, so that they must stay; "" for nothing.
    """

    path: str
    layer: Layer
    norms: list[tuple[_BatchNorm, int]] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    pinned: str = ""

    def pin(self, reason: str) -> None:
        """Note why the channels must stay; the first reason counts."""
        self.pinned = self.pinned or reason


def layer_graph(model: nn.Module) -> fx.Graph:
    """The graph of a network, its layers whole.

    Raises:
        ValueError: torch.fx cannot trace it.
    """
    try:
        return _Tracer().trace(model)
    except Exception as error:
        raise ValueError(f"torch.fx cannot trace the network: {error}") from error


def wires(model: nn.Module, graph: fx.Graph, example: Tensor) -> list[Wire]:
    """The wires of a network, in the order its layers run.

    Args:
        model: In eval mode.
        graph: Of it, from `trace`.
        example: Inputs, of which the first is run.
    """
    values = _Values(fx.GraphModule(model, graph))
    with torch.no_grad():
        values.run(example[:1])
    return _Walk(model, graph, values).wires


class _Tracer(fx.Tracer):
    """Takes a subclass of a layer that computes the same for a layer."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _base(m) in _LAYERS or super().is_leaf_module(m, module_qualified_name)


def _base(module: nn.Module) -> type | None:
    """The class whose forward a layer runs; of another module its own."""
    same = (kind for kind in _LAYERS if isinstance(module, kind))
    base = next(same, type(module))
    return base if type(module).forward is base.forward else None


class _Values(fx.Interpreter):
    """Keeps what each node gives, and what each module takes when it is called."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.given: dict[fx.Node, Any] = {}
        self.taken: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module":
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            # A copy: a later operation may work in place.
            first = (*args, *kwargs.values())[0]
            self.taken[n] = first.clone() if isinstance(first, Tensor) else torch.empty(0)
        self.given[n] = super().run_node(n)
        return self.given[n]


class _Walk:
    """Follows each layer's output through a graph."""

    def __init__(self, model: nn.Module, graph: fx.Graph, values: _Values) -> None:
        self.wires: list[Wire] = []
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._given, self._taken = values.given, values.taken
        self._at: dict[fx.Node, tuple[Wire, int]] = {}
        called = [self._modules[str(n.target)] for n in graph.nodes if n.op == "call_module"]
        self._calls = Counter(map(id, called))
        # A layer whose tensors are read elsewhere too, or shared, must stay as it is.
        self._shared = {
            id(self._modules[split_name(str(n.target))[0]])
            for n in graph.nodes
            if n.op == "get_attr" and split_name(str(n.target))[0] in self._modules
        }
        for places in Slots.of(model).places.values():
            if len(places) > 1:
                self._shared |= {id(self._modules[split_name(place)[0]]) for place in places}
        for node in graph.nodes:
            self._visit(node)

    def _visit(self, node: fx.Node) -> None:
        reads = [n for n in node.all_input_nodes if n in self._at]
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        if module is not None and self._is_layer(module, node):
            self._layer(node, module, reads)
        elif reads and not _takes_batch_size(node):
            self._pass(node, module, reads)

    def _is_layer(self, module: nn.Module, node: fx.Node) -> bool:
        """Whether it is a layer that may be cut, the input as it takes it."""
        if isinstance(module, nn.Linear):
            plain = self._given[node].dim() == 2
        else:
            plain = isinstance(module, nn.Conv2d) and module.groups == 1
        return plain and self._own(module)

    def _own(self, module: nn.Module) -> bool:
        """Whether nothing but its own call, once, has to do with its tensors."""
        hooked = module._forward_hooks or module._forward_pre_hooks
        own = all(name in module._parameters for name in ("weight", "bias"))
        known = _base(module) is not None and self._calls[id(module)] == 1
        return known and own and not hooked and id(module) not in self._shared

    def _layer(self, node: fx.Node, module: Any, reads: list[fx.Node]) -> None:
        for read in reads:
            wire, inner = self._at[read]
            wire.readers.append(Reader(module, self._taken[node], inner))
        wire = Wire(str(node.target), module)
        self.wires.append(wire)
        self._at[node] = wire, 1

    def _pass(self, node: fx.Node, module: nn.Module | None, reads: list[fx.Node]) -> None:
        """A node that is no layer: the wire goes on behind it, or is pinned."""
        wire, inner = self._at[reads[0]]
        kind = type(module) if module is not None else node.target
        if len(reads) == 1 and isinstance(self._given[node], Tensor):
            if module is not None and isinstance(module, _BatchNorm):
                if self._own(module) and module.running_mean is not None:
                    wire.norms.append((module, inner))
                    self._at[node] = wire, inner
                    return
            elif (
                kind in CHANNELWISE
                or (kind in _MEAN and self._over_space(node))
                or (kind in _DROPOUT and _is_off(node))
            ):
                self._at[node] = wire, inner
                return
            elif kind in FLATTEN or (kind in _RESHAPE and _adapts(node)):
                before, after = self._given[reads[0]], self._given[node]
                if after.shape == before.flatten(1).shape:
                    self._at[node] = wire, inner * (after.shape[1] // before.shape[1])
                    return
        for read in reads:
            self._at[read][0].pin(_title(node, module))

    def _over_space(self, node: fx.Node) -> bool:
        """Whether a mean is over axes behind the channels."""
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        count = self._given[node.all_input_nodes[0]].dim()
        listed = [dims] if isinstance(dims, int) else dims
        return isinstance(listed, list | tuple) and all(d % count > 1 for d in listed)  # type: ignore[operator]


def _takes_batch_size(node: fx.Node) -> bool:
    """Whether a node reads nothing of a tensor but its first dimension."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    if node.op == "call_function" and node.target is getattr and node.args[1:] == ("shape",):
        return all(u.target is operator.getitem and u.args[1] == 0 for u in node.users)
    return False


def _adapts(node: fx.Node) -> bool:
    """Whether a view or reshape is to (size, -1), which holds for any number of channels."""
    sizes = node.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = tuple(sizes[0])
    return len(sizes) == 2 and isinstance(sizes[1], int) and sizes[1] == -1


def _is_off(dropout: fx.Node) -> bool:
    """Whether a functional dropout was traced as in eval mode."""
    arguments = dropout.args
    return dropout.kwargs.get("training", arguments[2] if len(arguments) > 2 else True) is False


def _title(node: fx.Node, module: nn.Module | None) -> str:
    if node.op == "output":
        return "they are the network's output"
    name = str(node.target) if isinstance(node.target, str) else node.target.__name__
    return f"{name} ({type(module).__name__}) reads them" if module else f"{name} reads them"
