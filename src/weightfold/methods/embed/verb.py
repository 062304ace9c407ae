"""`wf.embed`: convolutions as the matrices that they are."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold.core.arguments import check_choices, check_memory, unwrapped
from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.select import Where, select
from weightfold.core.slots import replace_module, runs_as
from weightfold.methods.embed.chart import ConvolutionMatrix, MatrixLayer
from weightfold.trace import trace


def embed(
    net: nn.Module,
    example_input: Tensor,
    *,
    where: Where = None,
    execution: Literal["fold", "chain"] = "fold",
) -> Charted:
    """Train convolutions as points of their fully-connected space (d'Ascoli et al. 2019).

    The network below is that of `fully_connected`; its matrices are written by the kernels, which
    are what trains. What `deploy()` gives is fully connected and starts at the same function.

    >>> import torch, weightfold as wf
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    >>> x = torch.randn(5, 1, 6, 6)
    >>> net = wf.embed(model, x)
    >>> torch.allclose(net.deploy()(x), model(x), atol=1e-6)
    True
    >>> net.deploy()[0].weight.shape
    torch.Size([32, 36])

    Args:
        net: A plain module; left unchanged.
        example_input: A batch as it takes it; the size of one image counts.
        where: Conv2d layers by name, glob, type or predicate; None: all that run.
        execution: "fold" runs the matrices, "chain" the convolutions themselves, without memory
            for matrices.

    Raises:
        TypeError: `net` is a Charted net or no module.
        ValueError: A layer runs on several sizes or is a subclass with a forward of its own; there
            is none; or an argument is none of its choices.
        MemoryError: With "fold", the matrices take more memory than there is.
    """
    check_choices({"execution": execution}, {"execution": ("fold", "chain")})
    net = unwrapped(net)
    chosen = _convolutions(net, example_input, where)
    if execution == "fold":
        size = sum(
            _numel(shapes) * layer.weight.element_size() for layer, shapes in chosen.values()
        )
        check_memory("the layers as matrices", size)
    layers = {path: copy.deepcopy(layer) for path, (layer, _) in chosen.items()}
    shapes = {path: shapes[0] for path, (_, shapes) in chosen.items()}
    model = _with_matrices(net, chosen)
    return Charted(model, [ConvolutionMatrix(layers, shapes, execution)])


def fully_connected(net: nn.Module, example_input: Tensor, *, where: Where = None) -> nn.Module:
    """A copy of a network with a `MatrixLayer`, on the meta device, for each convolution.

    The network that a saved `embed` is loaded over. Arguments and errors as of `embed`.
    """
    net = unwrapped(net)
    return _with_matrices(net, _convolutions(net, example_input, where))


Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""(C, *size) of a layer's input and of its output."""


def _convolutions(
    net: nn.Module, example_input: Tensor, where: Where
) -> dict[str, tuple[nn.Conv2d, Shapes]]:
    if isinstance(net, Charted):
        raise TypeError("net is a Charted net; embed the plain network, e.g. net.deploy()")
    modules = dict(net.named_modules())
    calls = trace(net, example_input).calls
    sizes: dict[str, set[Shapes]] = {}
    for call in calls:
        if isinstance(modules[call.path], nn.Conv2d) and call.input and call.output:
            sizes.setdefault(call.path, set()).add((call.input[1:], call.output[1:]))
    chosen: dict[str, tuple[Any, Shapes]] = {}
    candidates = {path: modules[path] for path in sizes}
    if not candidates:
        raise ValueError("net has no nn.Conv2d that runs on example_input")
    for path in select(candidates, where, what="convolution"):
        if len(sizes[path]) > 1 or not path:
            raise ValueError(f"layer {path!r} runs on images of several sizes, or is the network")
        if not runs_as(modules[path], (nn.Conv2d,)):
            raise ValueError(
                f"layer {path!r}, a {type(modules[path]).__name__}, has a forward or hooks of its "
                "own, which a matrix would not run; leave it out of `where`"
            )
        chosen[path] = modules[path], next(iter(sizes[path]))
    return chosen


def _with_matrices(net: nn.Module, chosen: dict[str, tuple[nn.Conv2d, Shapes]]) -> nn.Module:
    # The kernels are not part of the network below: what is replaced need not be copied.
    memo = {id(layer): nn.Identity() for layer, _ in chosen.values()}
    model = copied(net, memo)
    for path, (layer, shapes) in chosen.items():
        with torch.device("meta"):
            matrix = MatrixLayer(*shapes, bias=layer.bias is not None)
        matrix.to(layer.weight.dtype).requires_grad_(layer.weight.requires_grad)
        replace_module(model, path, matrix.train(layer.training))
    return model


def _numel(shapes: Shapes) -> int:
    return torch.Size(shapes[0]).numel() * torch.Size(shapes[1]).numel()
