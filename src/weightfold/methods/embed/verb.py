"""`wf.embed`: a network of convolutions as one of larger linear layers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold.core.arguments import check_choices, unwrapped, whole
from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.select import Where, select
from weightfold.core.slots import check_state, runs_as
from weightfold.methods.embed.chart import ConvolutionMatrix
from weightfold.methods.embed.geometry import CONVOLUTIONS, Geometry
from weightfold.methods.embed.layers import (
    DenseConv,
    Embedded,
    LocalConv,
    LowRankConv,
    Space,
    embedded_layers,
)
from weightfold.methods.embed.size import EmbeddingSize, check_fits, sizes
from weightfold.methods.embed.strided import write_into
from weightfold.trace import trace

SPACES = ("dense", "local", "lowrank", "shared")
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def embed(
    net: nn.Module,
    input_shape: Sequence[int] | Tensor,
    space: Literal["dense", "local", "lowrank", "shared"] = "dense",
    *,
    rank: int | None = None,
    padding: Literal["fold", "keep"] = "fold",
    where: Where = None,
    execution: Literal["fold", "chain"] = "fold",
) -> nn.Module:
    """The same function with larger linear layers in place of convolutions (d'Ascoli et al. 2019).

    Its weights train freely from there: the network begins as a convolutional one ("eFCN"). All
    other layers stay as they are, batch norm a channel at a time.

    >>> import torch, weightfold as wf
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    >>> wf.embed(model, (1, 6, 6))
    Sequential(
      (0): DenseConv(1x6x6 -> 2x4x4, kernel_size=(3, 3), stride=(1, 1), bias=True, weights=1,184)
      (1): ReLU()
    )
    >>> wf.embedding_size(model, (1, 6, 6))["local"].weights
    320
    >>> wf.deviation(wf.embed(model, (1, 6, 6)))
    0.0

    Args:
        net: A plain module; left unchanged.
        input_shape: (C, H, W) of one image, (C, L) or (C, D, H, W); or a batch as it takes it.
        space: Where its weights live: "dense", fully connected layers; "local", locally connected
            ones, a kernel for every output position; "lowrank", the convolution and a matrix of
            rank `rank` beside it, zero at first; "shared", the kernels themselves: a Charted net
            over the dense network, which `deploy()` gives.
        rank: Of "lowrank".
        padding: "fold" leaves out the columns that would multiply padding; "keep" has them, as the
            paper: they never change, but count in `deviation`. Of "local" always kept.
        where: Convolutions by name, glob, type or predicate; None: all that run.
        execution: Of "shared": "fold" runs the matrices, "chain" the convolutions, without memory
            for matrices.

    Raises:
        TypeError: `net` is a Charted net or no module.
        ValueError: A layer cannot be embedded: it runs on several sizes, is transposed, or is a
            subclass with a forward of its own; there is none; or an argument is none of its
            choices.
        MemoryError: The device's memory cannot hold the weights; the message says what would fit.
    """
    choices = {"space": SPACES, "padding": ("fold", "keep"), "execution": ("fold", "chain")}
    check_choices({"space": space, "padding": padding, "execution": execution}, choices)
    if (rank is not None) != (space == "lowrank"):
        raise ValueError(f"rank={rank} with space={space!r}: give it for 'lowrank', and only there")
    rank = None if rank is None else whole(rank, "rank", least=1)
    net = unwrapped(net)
    chosen = _convolutions(net, input_shape, where, padding == "fold")
    if space != "shared" or execution == "fold":
        held: Space = "dense" if space == "shared" else space
        check_fits(held, _sizes(net, chosen, rank), _device(net))
    if space == "shared":
        if "" in chosen:
            raise ValueError("net is itself a convolution; put it into a Sequential for 'shared'")
        return _in_kernels(net, chosen, execution)
    layers = {path: _embedded(layer, g, space, rank) for path, (layer, g) in chosen.items()}
    return _replaced(net, chosen, layers)


def embedding_size(
    net: nn.Module,
    input_shape: Sequence[int] | Tensor,
    *,
    rank: int = 16,
    padding: Literal["fold", "keep"] = "fold",
    where: Where = None,
) -> Mapping[str, EmbeddingSize]:
    """Weights and bytes of a network's embedding in every space; nothing is allocated.

    >>> import torch, weightfold as wf
    >>> size = wf.embedding_size(torch.nn.Conv2d(3, 64, 3), (3, 224, 224))
    >>> f"{size['dense'].weights:,}", f"{size['local'].weights:,}"
    ('474,794,959,104', '88,316,928')

    Arguments and errors as of `embed`, `rank` of "lowrank".
    """
    net = unwrapped(net)
    return _sizes(net, _convolutions(net, input_shape, where, padding == "fold"), rank)


Chosen = Mapping[str, tuple[nn.Module, Geometry]]


def _sizes(net: nn.Module, chosen: Chosen, rank: int | None) -> dict[str, EmbeddingSize]:
    inside = {id(p) for layer, _ in chosen.values() for p in layer.parameters()}
    others = sum(p.numel() for p in net.parameters() if id(p) not in inside)
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    geometries = {path: g for path, (_, g) in chosen.items()}
    biases = {path: layer.bias is not None for path, (layer, _) in chosen.items()}
    return sizes(geometries, biases, others, dtype, rank)


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def _convolutions(
    net: nn.Module, input_shape: Sequence[int] | Tensor, where: Where, folded: bool
) -> dict[str, tuple[Any, Geometry]]:
    if isinstance(net, Charted):
        raise TypeError("net is a Charted net; embed the plain network, e.g. net.deploy()")
    modules, x = dict(net.named_modules()), _example(net, input_shape)
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for call in trace(net, x, argument="input_shape").calls:
        if isinstance(modules[call.path], (*CONVOLUTIONS, *TRANSPOSED)) and call.input:
            shapes.setdefault(call.path, set()).add(call.input)
    candidates = {path: modules[path] for path in shapes}
    if not candidates:
        raise ValueError("net has no convolution that runs on input_shape")
    chosen = {}
    for path in select(candidates, where, what="convolution"):
        layer, found = modules[path], shapes[path]
        if reason := _obstacle(layer, found):
            raise ValueError(f"layer {path!r}, {layer}, cannot be embedded: {reason}")
        chosen[path] = layer, Geometry.of(layer, next(iter(found))[1:], folded)
    return chosen


def _obstacle(layer: nn.Module, shapes: set[tuple[int, ...]]) -> str:
    """Why a layer is no matrix of one size; "" if it is."""
    if isinstance(layer, TRANSPOSED):
        return "it is transposed, and no kernel of a convolution; leave it out of `where`"
    if not runs_as(layer, CONVOLUTIONS):
        return (
            f"{type(layer).__name__} has a forward or hooks of its own, which a matrix would not "
            "run; leave it out of `where`"
        )
    if len(shapes) > 1:
        return f"it runs on images of several sizes, {sorted(shape[1:] for shape in shapes)}"
    if len(next(iter(shapes))) != len(layer.kernel_size) + 2:  # type: ignore[arg-type]
        return "it runs on an input without a batch dimension"
    return ""


def _example(net: nn.Module, input_shape: Sequence[int] | Tensor) -> Tensor:
    if isinstance(input_shape, Tensor):
        return input_shape
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str):
        raise TypeError(f"input_shape={input_shape!r}; give (channels, height, width), or a tensor")
    shape = tuple(whole(size, "input_shape", least=1) for size in input_shape)
    dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    return torch.empty(1, *shape, dtype=dtype, device="meta")


@torch.no_grad()
def lift(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give an embedded network the weights of the convolutional one, in place.

    What low rank adds is set to zero.

    Args:
        net: What `embed` returned.
        weights: State_dict of a network of the architecture that was embedded.

    Raises:
        ValueError: `net` has no embedded layers.
        KeyError: The weights are of another network; the message says which names differ.
    """
    layers = embedded_layers(net)
    owned = {f"{path}.{name}".lstrip("."): None for path, m in layers.items()
             for name, _ in m.named_parameters()}  # fmt: skip
    rest = {name: tensor for name, tensor in net.state_dict().items() if name not in owned}
    wanted = dict(rest)
    for path, layer in layers.items():
        for name, shape in _plain_shapes(layer).items():
            wanted[f"{path}.{name}".lstrip(".")] = torch.empty(shape, device="meta")
    check_state(wanted, weights)
    for name, tensor in rest.items():
        tensor.copy_(weights[name])
    for path, layer in layers.items():
        has = layer.bias is not None
        bias = weights[f"{path}.bias".lstrip(".")] if has else None
        _fill(layer, weights[f"{path}.weight".lstrip(".")], bias)


def _plain_shapes(layer: Embedded) -> dict[str, tuple[int, ...]]:
    shapes = {"weight": layer.geometry.kernel_shape}
    return shapes if layer.bias is None else shapes | {"bias": (layer.geometry.out_channels,)}


def _fill(layer: Embedded, weight: Tensor, bias: Tensor | None) -> None:
    """The convolution's weights in the larger space, in place."""
    if isinstance(layer, DenseConv):
        write_into(layer.weight, weight.to(layer.weight), layer.geometry)
    elif isinstance(layer, LocalConv):
        layer.weight.copy_(weight.flatten(1))
    elif isinstance(layer, LowRankConv):
        layer.kernel.copy_(weight)
        layer.left.zero_()
    if bias is not None:
        layer.bias.copy_(bias.repeat_interleave(len(layer.bias) // len(bias)))


@torch.no_grad()
def _embedded(layer: Any, geometry: Geometry, space: Space, rank: int | None) -> Embedded:
    """The layer in the larger space, with its weights; each in memory once."""
    has, weight = layer.bias is not None, layer.weight.detach()
    with torch.device("meta"):
        if space == "lowrank":
            made: Embedded = LowRankConv(geometry, has, rank or 1)
        else:
            made = (DenseConv if space == "dense" else LocalConv)(geometry, has)
    made = made.to(weight.dtype).to_empty(device=weight.device)
    if isinstance(made, LowRankConv) and not weight.is_meta:
        made.reset_parameters()
    if not weight.is_meta:
        _fill(made, weight, layer.bias)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_((layer.bias if name == "bias" else layer.weight).requires_grad)
    return made.train(layer.training)


def _replaced(net: nn.Module, chosen: Chosen, layers: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the network with other layers in those places."""
    # What is replaced need not be copied.
    memo: dict[int, Any] = {id(layer): layers[path] for path, (layer, _) in chosen.items()}
    return layers[""] if "" in layers else copied(net, memo)


def _in_kernels(net: nn.Module, chosen: Chosen, execution: str) -> Charted:
    """The dense network with its weights computed from kernels."""
    layers: dict[str, DenseConv] = {}
    for path, (layer, geometry) in chosen.items():
        with torch.device("meta"):
            layers[path] = DenseConv(geometry, layer.bias is not None)
        weight = layer.weight
        layers[path].to(weight.dtype).requires_grad_(weight.requires_grad)  # type: ignore
        layers[path].train(layer.training)
    chart = ConvolutionMatrix(layers, "shared", execution).to(_device(net))
    for path, (layer, _) in chosen.items():
        chart.get_submodule(path).load_state_dict(layer.state_dict())
    model = _replaced(net, chosen, layers)
    return Charted(model, [chart])
