"""What charts compute, held against the model that they are for, without its memory."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from weightfold.core.chart import Chart
from weightfold.core.mixins import NO_CONTEXT, CallContext
from weightfold.core.slots import Slots, check_chartable, split_name


def chart_list(model: Any, charts: Any) -> list[Chart]:
    """The charts, as a list.

    Raises:
        TypeError: `model` is no module, or `charts` are no charts.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    if isinstance(charts, nn.Module) or not isinstance(charts, Iterable):
        raise TypeError(f"charts is a {type(charts).__name__}; give a list of charts")
    listed = list(charts)
    for chart in listed:
        if not isinstance(chart, Chart):
            raise TypeError(f"charts has a {type(chart).__name__}; give charts")
    return listed


def check_charts(model: nn.Module, slots: Slots, charts: list[Chart]) -> list[str]:
    """Check that charts compute disjoint tensors of a model, in its shapes and dtypes.

    Args:
        model: What the charts are for.
        slots: Of `model`.
        charts: Of one level.

    Returns:
        Canonical names of what they compute, in order.

    Raises:
        KeyError: A chart names a tensor that the model lacks.
        ValueError: A tensor is computed twice, has another shape or dtype than the model's, is
            lazy, or belongs to a recurrent layer.
    """
    owner: dict[str, int] = {}
    for index, chart in enumerate(charts):
        at = chart.default_context() if isinstance(chart, CallContext) else NO_CONTEXT
        theta = _computed(chart, at)
        resized = chart.resized_layers(**at) if isinstance(chart, CallContext) else {}
        for name, tensor in theta.items():
            canonical = slots.resolve(name)
            there = slots.tensors[canonical]
            check_chartable(model, name, there)
            if canonical in owner:
                raise ValueError(
                    f"tensor {name!r} is computed twice, by chart {owner[canonical]} and chart "
                    f"{index} ({chart.kind}), or under two names of one tied tensor"
                )
            # A layer made anew has the shapes that its chart gives it.
            shape = tensor.shape if split_name(name)[0] in resized else there.shape
            if tensor.shape != shape or tensor.dtype != there.dtype:
                raise ValueError(
                    f"chart {index} ({chart.kind}) gives {name!r} as {tensor.dtype} "
                    f"{tuple(tensor.shape)}, but the model's is {there.dtype} "
                    f"{tuple(there.shape)}"
                )
            owner[canonical] = index
    return list(owner)


@torch.no_grad()
def _computed(chart: Chart, at: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a chart computes, as tensors on the meta device: names, shapes and dtypes, no memory.

    A chart that cannot run there (it keeps tensors that are no buffers) computes in earnest.
    """
    own = chain(
        chart.named_parameters(remove_duplicate=False), chart.named_buffers(remove_duplicate=False)
    )
    empty = {name: tensor.to("meta") for name, tensor in own}
    try:
        with torch.device("meta"):
            return functional_call(chart, empty, (), dict(at), tie_weights=False)
    except (RuntimeError, NotImplementedError):
        return chart(**at)
