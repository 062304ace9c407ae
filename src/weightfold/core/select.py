"""`where`: choose layers or tensors by name, glob, type or predicate."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from weightfold.core.charted import Charted, charts_of, short_name
from weightfold.core.mixins import LayerCoordinates
from weightfold.core.slots import check_chartable, split_name

Where = str | type | Callable[[str, Any], bool] | Iterable[Any] | None


def select(
    candidates: Mapping[str, Any],
    where: Where,
    *,
    what: str,
    net: nn.Module | None = None,
    types: Mapping[str, Any] | None = None,
) -> list[str]:
    """Names among `candidates` that `where` chooses, in their order.

    Args:
        candidates: Name -> module or tensor.
        where: A name, a glob ("features.*.weight"), a type, a predicate `(name, object) -> bool`,
            or several of them; None chooses all. Names match in full or in `short_name`.
        what: What the candidates are, for errors ("layer", "tensor").
        net: The net the names belong to, for short names.
        types: Name -> object whose type counts, where that is not the candidate itself.

    Raises:
        ValueError: An item of `where` matches nothing; the message lists near names.
        TypeError: An item is of no such kind.
    """
    short = {n: short_name(net, n) if net is not None else n for n in candidates}
    if where is None:
        return list(candidates)
    if isinstance(where, bytes) or not (isinstance(where, str | Iterable) or callable(where)):
        raise TypeError(f"where={where!r}; give names, globs, types or predicates")
    items = [where] if isinstance(where, str | type) or callable(where) else list(where)
    if not items:
        raise ValueError(f"where=[] chooses no {what}; leave it out (None) for the default")
    chosen: set[str] = set()
    for item in items:
        if isinstance(item, str):
            found = {n for n in candidates if fnmatchcase(n, item) or fnmatchcase(short[n], item)}
        elif isinstance(item, type):
            found = {n for n in candidates if isinstance((types or candidates)[n], item)}
        elif callable(item):
            found = {n for n, candidate in candidates.items() if item(short[n], candidate)}
        else:
            raise TypeError(f"where has the item {item!r}; give names, globs, types or predicates")
        if not found:
            names = list(short.values())
            near = difflib.get_close_matches(str(item), names, n=3) or names[:8]
            raise ValueError(f"where={item!r} matches no {what}; there are {', '.join(near)}")
        chosen |= found
    return [n for n in candidates if n in chosen]


def select_tensors(net: nn.Module, where: Where) -> dict[str, nn.Parameter]:
    """Trainable parameters of `net` that `where` chooses; types are those of the owning module.

    Raises:
        ValueError: Nothing is chosen, or a tensor that is lazy or of a recurrent layer.
    """
    candidates = {n: p for n, p in net.named_parameters() if p.requires_grad}
    owners = {n: net.get_submodule(split_name(n)[0]) for n in candidates}
    names = select(candidates, where, what="trainable tensor", net=net, types=owners)
    if not names:
        raise ValueError("the net has no trainable parameter")
    for name in names:
        check_chartable(net, name, candidates[name])
    return {n: candidates[n] for n in names}


def locate(net: nn.Module, name: str) -> str | None:
    """Name, in `net`, of the tensor that stands for tensor `name` of the deployed model.

    Where a chart below computes the tensor, that is the coordinate of the same name and shape
    (a mask has one, a random subspace has none). `name` may also be a coordinate that is a layer's
    weight, or that layer's bias, see `coordinate_layers`.
    """
    if not isinstance(net, Charted):
        parameters = dict(net.named_parameters(remove_duplicate=False))
        return name if name in parameters else None
    below = locate(net.model, name)
    if below is not None:
        return f"model.{below}"
    for index, chart in enumerate(net.charts):
        psi = dict(chart.named_parameters())
        weight = f"{split_name(name)[0]}.weight"
        whole = isinstance(chart, LayerCoordinates) and name in psi and weight in psi
        if whole and chart.coordinate_layer(weight) is not None:
            return f"charts.{index}.{name}"
        for candidate in net._canonical:
            if candidate in psi and short_name(net.model, candidate) == name:
                return f"charts.{index}.{candidate}"
    return None


def coordinate_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Layers, without tensors, whose weights are coordinates of `net`, by path in their chart."""
    found: dict[str, nn.Module] = {}
    while isinstance(net, Charted):
        for chart in charts_of(net, LayerCoordinates):
            for name, _ in chart.named_parameters():  # type: ignore[attr-defined]
                if (layer := chart.coordinate_layer(name)) is not None:
                    found[split_name(name)[0]] = layer
        net = net.model
    return found


def plain_model(net: nn.Module) -> nn.Module:
    """The innermost model of a net, its charted slots empty."""
    while isinstance(net, Charted):
        net = net.model
    return net


def plain_layer(net: nn.Module, path: str) -> nn.Module:
    """The layer whose weight is the tensor `path`.weight of `net`."""
    name, _ = split_name(short_name(net, f"{path}.weight"))
    layers = coordinate_layers(net)
    return layers[name] if name in layers else plain_model(net).get_submodule(name)
