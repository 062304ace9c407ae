"""Batch norms of an exported graph, in eval mode, folded into the layers before them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils import fuse_conv_bn_weights

_aten = torch.ops.aten
_CONVOLUTIONS = {_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default}


def fold_batch_norms(graph_module: GraphModule) -> None:
    """Replace every batch norm, in place, without changing what the graph computes.

    One behind a convolution that nothing else reads goes into the convolution's weight and bias
    (a weight that several convolutions share is copied first); any other becomes a scale and a
    shift per channel. All new tensors are Parameters.

    Args:
        graph_module: From `torch.export.export(...).module()` of a network in eval mode.
    """
    for node in list(graph_module.graph.nodes):
        if node.target is _aten.batch_norm.default:
            layer = node.args[0]
            if layer.target in _CONVOLUTIONS and len(layer.users) == 1:
                _into_convolution(graph_module, layer, node)
            else:
                _into_scale_and_shift(graph_module, node)
    graph_module.graph.eliminate_dead_code()
    drop_unused(graph_module)
    graph_module.recompile()


class _Norm(NamedTuple):
    """mean, variance, gamma, beta: (C,)."""

    mean: Tensor
    variance: Tensor
    gamma: Tensor
    beta: Tensor
    eps: float


def _into_convolution(graph_module: GraphModule, layer: Node, norm: Node) -> None:
    mean, variance, gamma, beta, eps = _read(graph_module, norm)
    weight, bias = _value(graph_module, layer, 1), _value(graph_module, layer, 2)
    assert weight is not None
    weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, eps, gamma, beta)
    layer.args = (
        layer.args[0],
        _parameter(graph_module, layer, f"_folded_{norm.name}_weight", weight),
        _parameter(graph_module, layer, f"_folded_{norm.name}_bias", bias),
        *layer.args[3:],
    )
    norm.replace_all_uses_with(layer)
    graph_module.graph.erase_node(norm)


def _into_scale_and_shift(graph_module: GraphModule, norm: Node) -> None:
    mean, variance, gamma, beta, eps = _read(graph_module, norm)
    scale = gamma * (variance + eps).rsqrt()
    shift = beta - mean * scale
    shape = (-1,) + (1,) * (norm.meta["val"].dim() - 2)
    nodes = [
        _parameter(graph_module, norm, f"_folded_{norm.name}_{kind}", value.reshape(shape))
        for kind, value in (("scale", scale), ("shift", shift))
    ]
    with graph_module.graph.inserting_before(norm):
        scaled = graph_module.graph.call_function(_aten.mul.Tensor, (norm.args[0], nodes[0]))
        shifted = graph_module.graph.call_function(_aten.add.Tensor, (scaled, nodes[1]))
    shifted.meta["val"] = scaled.meta["val"] = norm.meta["val"]
    norm.replace_all_uses_with(shifted)
    graph_module.graph.erase_node(norm)


def _read(graph_module: GraphModule, norm: Node) -> _Norm:
    gamma, beta, mean, variance = (_value(graph_module, norm, index) for index in range(1, 5))
    eps = norm.args[7]
    assert mean is not None and variance is not None and isinstance(eps, float)
    gamma = torch.ones_like(mean) if gamma is None else gamma
    beta = torch.zeros_like(mean) if beta is None else beta
    return _Norm(mean, variance, gamma, beta, eps)


def _value(graph_module: GraphModule, node: Node, index: int) -> Tensor | None:
    """The tensor that is argument `index` of `node`."""
    argument = node.args[index] if index < len(node.args) else None
    if argument is None:
        return None
    assert isinstance(argument, Node) and isinstance(argument.target, str)
    module, _, name = argument.target.rpartition(".")
    return getattr(graph_module.get_submodule(module), name).detach()


def _parameter(graph_module: GraphModule, before: Node, name: str, value: Tensor) -> Node:
    setattr(graph_module, name, nn.Parameter(value.detach().clone()))
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(name)


def drop_unused(graph_module: GraphModule) -> None:
    """Remove the parameters and buffers that no node reads."""
    read = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    for prefix, module in graph_module.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name in list(tensors):
                if (f"{prefix}.{name}" if prefix else name) not in read:
                    delattr(module, name)
