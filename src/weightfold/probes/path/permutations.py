"""Which tensors the order of a layer's channels runs through: groups that may be permuted."""

import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightfold.core.slots import Slots
from weightfold.probes.tickets.channels import CHANNELWISE, FLATTEN, layer_graph

_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_RESHAPE = {"view", "reshape", torch.reshape}
_MEAN = {"mean", torch.mean}


@dataclass
class Group:
    """Channels that are permuted together: those of layers whose outputs meet in a sum.

    Attributes:
        size: Number of channels.
        tensors: (name, axis, inner): where they lie; `inner` entries in turn are one channel.
        fixed: Why they stay; "" if they may be permuted.
    """

    size: int
    tensors: list[tuple[str, int, int]] = field(default_factory=list)
    fixed: str = ""


def groups(net: nn.Module, example: Tensor) -> list[Group]:
    """The groups of a network that may be permuted without changing its function.

    Args:
        net: A plain network in eval mode.
        example: Inputs that it takes, (B, ...).

    Raises:
        ValueError: torch.fx cannot trace it.
    """
    walk = _Walk(net, layer_graph(net), example)
    found = {id(g): g for g in map(walk.of, walk.made)}
    return [g for g in found.values() if not g.fixed and g.size > 1 and g.tensors]


class _Walk:
    """Follows channels through a graph, joining the groups that meet in sums."""

    def __init__(self, net: nn.Module, graph: fx.Graph, example: Tensor) -> None:
        self.made: list[Group] = []
        self._joined: dict[int, Group] = {}
        self._at: dict[fx.Node, tuple[Group, int]] = {}
        self._modules = dict(net.named_modules())
        called = [str(n.target) for n in graph.nodes if n.op == "call_module"]
        self._calls = Counter(called)
        self._tied = {p for ps in Slots.of(net).places.values() if len(ps) > 1 for p in ps}
        self._shapes = _shapes(net, graph, example)
        for node in graph.nodes:
            self._visit(node)

    def of(self, group: Group) -> Group:
        """What a group was joined into."""
        while id(group) in self._joined:
            group = self._joined[id(group)]
        return group

    def _group(self, node: fx.Node, inner: int = 1) -> Group:
        group = Group(self._shapes[node][1] // inner if len(self._shapes[node]) > 1 else 1)
        self.made.append(group)
        self._at[node] = group, inner
        return group

    def _visit(self, node: fx.Node) -> None:
        reads = [n for n in node.all_input_nodes if n in self._at]
        if node.op in ("placeholder", "get_attr"):
            self._group(node).fixed = "an input"
            return
        if node.op == "output":
            self._fix(reads, "the network's output")
            return
        path = str(node.target)
        module = self._modules.get(path) if node.op == "call_module" else None
        if module is not None and len(reads) == 1 and self._layer(node, path, module, reads[0]):
            return
        if not self._passes(node, module, reads):
            self._fix(reads, str(node.target))
            self._group(node).fixed = str(node.target)

    def _fix(self, reads: list[fx.Node], why: str) -> None:
        for read in reads:
            group = self.of(self._at[read][0])
            group.fixed = group.fixed or why

    def _layer(self, node: fx.Node, path: str, module: nn.Module, read: fx.Node) -> bool:
        """A layer whose tensors go along; False if it is none, or has its tensors in common."""
        own = [f"{path}.{name}" for name in (*module._parameters, *module._buffers)]
        if self._calls[path] > 1 or any(name in self._tied for name in own):
            return False
        group, inner = self.of(self._at[read][0]), self._at[read][1]
        if isinstance(module, _BatchNorm):
            names = ("weight", "bias", "running_mean", "running_var")
            kept = [name for name in names if getattr(module, name) is not None]
            group.tensors += [(f"{path}.{name}", 0, inner) for name in kept]
            self._at[node] = group, inner
            return True
        plain = isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward
        linear = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
        if not (plain or (linear and len(self._shapes[node]) == 2)):
            return False
        count = getattr(module, "groups", 1)
        beside = [f"{path}.bias"] if module.bias is not None else []
        if count == 1:
            group.tensors.append((f"{path}.weight", 1, inner))
            out = self._group(node)
        elif count == group.size == module.out_channels and inner == 1:
            out, self._at[node] = group, (group, 1)
        else:
            return False
        out.tensors += [(name, 0, 1) for name in (f"{path}.weight", *beside)]
        return True

    def _passes(self, node: fx.Node, module: nn.Module | None, reads: list[fx.Node]) -> bool:
        """Whether each channel of the output depends on the same channel of the inputs alone."""
        kind = type(module) if module is not None else node.target
        shape = self._shapes[node]
        if not reads or len(shape) < 2:
            return False
        group, inner = self.of(self._at[reads[0]][0]), self._at[reads[0]][1]
        before = self._shapes[reads[0]]
        if kind in _ADD and len(reads) == 2:
            return self._join(node, reads)
        if len(reads) > 1:
            return False
        if kind in FLATTEN or kind in _RESHAPE:
            if shape[0] != before[0] or len(shape) != 2 or shape[1] % before[1]:
                return False
            self._at[node] = group, inner * (shape[1] // before[1])
            return True
        if kind in CHANNELWISE or (kind in _MEAN and shape[:2] == before[:2]):
            self._at[node] = group, inner
            return True
        return kind in _ADD and self._same(node, group, inner)

    def _same(self, node: fx.Node, group: Group, inner: int) -> bool:
        self._at[node] = group, inner
        return True

    def _join(self, node: fx.Node, reads: list[fx.Node]) -> bool:
        (a, inner), (b, other) = ((self.of(self._at[r][0]), self._at[r][1]) for r in reads)
        if a.size != b.size or inner != other or self._shapes[reads[0]] != self._shapes[reads[1]]:
            return False
        if a is not b:
            a.tensors += b.tensors
            a.fixed = a.fixed or b.fixed
            self._joined[id(b)] = a
        self._at[node] = a, inner
        return True


def _shapes(net: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, tuple[int, ...]]:
    """Shape of what each node gives; () if it is no tensor."""
    found: dict[fx.Node, tuple[int, ...]] = {}

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            found[n] = tuple(result.shape) if isinstance(result, Tensor) else ()
            return result

    with torch.no_grad():
        Shapes(fx.GraphModule(net, graph)).run(example)
    return found
