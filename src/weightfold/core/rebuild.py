"""A saved net made again: first without memory, so that what a file asks for is seen in time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.arguments import check_memory, check_values
from weightfold.core.chart import Chart, registered_charts
from weightfold.core.charted import charted_class
from weightfold.core.copying import copied
from weightfold.core.slots import check_state, load_state


def rebuild(
    folder: str | Path,
    model: nn.Module,
    levels: list[list[dict[str, Any]]],
    state: Mapping[str, Tensor],
) -> nn.Module:
    """The net of `levels` over a copy of `model`, with `state`; `folder` is named in errors.

    Raises:
        ValueError: A chart is unknown, or a tensor that none computes is on the meta device.
        KeyError: The weights are of another architecture; the message lists the keys.
    """
    kinds = registered_charts()
    for chart in (chart for level in levels for chart in level):
        if chart["kind"] not in kinds:
            raise ValueError(
                f"{folder} needs the chart {chart['kind']!r}; there are {list(kinds)}: import the "
                "module that defines it first"
            )
    hollow = _hollow(model)
    try:
        with torch.device("meta"):
            planned = _build(hollow, levels, kinds)
        check_state(planned.state_dict(), state)
        if all(tensor.device.type == "cpu" for tensor in model.parameters()):
            size = sum(t.nbytes for t in (*planned.parameters(), *planned.buffers()))
            check_memory("its charts make a net", size)
        net = _build(model, levels, kinds)
    except _UNBUILDABLE as error:
        told = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise KeyError(
            f"{folder} was saved from another architecture than this {type(model).__name__}: {told}"
        ) from error
    check_values(net)
    if net is model:
        net = copied(model)
    _take_dtypes(net, state)
    load_state(net, state, strict=False)
    return net


def _take_dtypes(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the tensors of `net` the dtypes of the saved ones."""
    saved = {name: tensor.dtype for name, tensor in state.items() if isinstance(tensor, Tensor)}
    there = net.state_dict(keep_vars=True)
    if all(
        tensor.dtype == saved.get(name, tensor.dtype)
        for name, tensor in there.items()
        if isinstance(tensor, Tensor)
    ):
        return
    if len(floating := {dtype for dtype in saved.values() if dtype.is_floating_point}) == 1:
        dtype = floating.pop()  # constants that are not saved get it, too
        net._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)
    for name, tensor in net.state_dict(keep_vars=True).items():
        if name in saved:
            tensor.data = tensor.data.to(saved[name])


_UNBUILDABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What charts raise that do not fit a network."""


def _build(
    net: nn.Module, levels: list[list[dict[str, Any]]], kinds: Mapping[str, type[Chart]]
) -> nn.Module:
    """`net` under the charts of all levels."""
    for level in levels:
        charts = [kinds[c["kind"]].build(net, **c["config"]) for c in level]
        net = charted_class(charts)(net, charts)
    return net


def _hollow(model: nn.Module) -> nn.Module:
    """A copy of a network on the meta device, with its ties."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if parameter else empty
    return copied(model, memo)
