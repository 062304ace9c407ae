"""wf.expand: choose layers and train them as products of linear layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.core.select import Where, coordinate_layers, locate, plain_model, select
from weightfold.core.slots import Slots, check_chartable, split_name
from weightfold.methods.expand.chain import (
    CONVOLUTIONS,
    Chain,
    chains_bias,
    kernels,
    make_chain,
    obstacle,
    widths,
)
from weightfold.methods.expand.chart import Expansion
from weightfold.methods.expand.cost import LayerCost, chain_cost
from weightfold.methods.expand.initial import fit_chain, match_variance
from weightfold.trace import trace

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def expand(
    net: nn.Module,
    rate: float = 4,
    conv: Literal["cl", "ck"] | None = "cl",
    *,
    linear: Literal["fc"] | None = None,
    linear_depth: int = 3,
    where: Where = None,
    first: Literal["rm", "m"] = "rm",
    init: Literal["paper", "variance", "preserve"] = "paper",
    execution: Literal["auto", "fold", "chain"] = "auto",
    example_input: Tensor | None = None,
    seed: int | None = None,
) -> Charted:
    """Expand layers of `net` into products of linear layers (ExpandNets, Guo et al. 2020).

    Args:
        net: A module or a Charted net; left unchanged. With "paper" and "variance" the expanded
            layers start anew; with "preserve" they start as the function `net` is.
        rate: Expansion rate r: inner widths are int(r m), int(r n) (section 3.1), below 1 too.
        conv: "cl" (1x1, kxk, 1x1), "ck" ((k - 1) / 2 kernels of 3; falls to "cl" where that is
            one), or None. Grouped convolutions expand inside each group.
        linear: "fc" expands every Linear but the last into `linear_depth` layers.
        linear_depth: Layers per expanded Linear, at least 2.
        where: None: every convolution with a kernel larger than 1 (and, with "fc", every Linear
            but the last) that trains; or names, globs, layer types, a predicate `(name, layer)`.
        first: "rm", or "m" to leave the image channels of the first convolution unexpanded, as
            the authors' code does for Tables 1, 8 and 9.
        init: "paper": torch's default for each factor; "variance": the folded std is the plain
            layer's; "preserve": the same function as `net` (exact for CL and FC at rate >= 1,
            else least squares; `net.charts[0].residuals` tells how near).
        execution: "fold" computes the folded weights on the fly, "chain" runs the factors,
            "auto" takes the cheaper by multiply-adds (fold where `example_input` is None).
        example_input: A batch as in training; its size enters the cost model.
        seed: Seeds the factors; None draws from torch's global generator.

    Returns:
        The net in expanded coordinates.

    Raises:
        ValueError: An argument is none of its choices, nothing is chosen, a kernel is even with
            "ck", a rate leaves no channels, or a chosen layer cannot be expanded.
        TypeError: `where` or `example_input` is of no such kind.
    """
    _check_choices(conv=conv, linear=linear, first=first, init=init, execution=execution)
    if linear_depth < 2:
        raise ValueError(f"linear_depth={linear_depth}; a product has at least 2 factors")
    if not 0 < rate < float("inf"):
        raise ValueError(f"rate={rate}; the expansion rate is a positive number")
    if not isinstance(example_input, Tensor | None):
        raise TypeError(f"example_input is a {type(example_input).__name__}; give a tensor")
    chosen = _choose(net, conv, linear, where)
    opening = next((m for m in plain_model(net).modules() if isinstance(m, CONVOLUTIONS)), None)
    tensors = dict(net.named_parameters(remove_duplicate=False))
    shapes = _shapes(net, example_input) if example_input is not None else {}
    chains: dict[str, Chain] = {}
    layers: dict[str, dict[str, Any]] = {}
    with torch.device("cpu"), torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        for path, layer in chosen.items():
            weight = tensors[f"{path}.weight"]
            bias = tensors[f"{path}.bias"] if chains_bias(tensors, path) else None
            with _naming(path):
                kind, length = _factors(layer, conv, linear_depth)
                channels = widths(layer, rate, length, first if layer is opening else "rm")
                chain = make_chain(layer, channels, kind, bias is not None)
            chain.to(weight.device, weight.dtype)
            with _naming(path):
                if init != "paper":
                    (match_variance if init == "variance" else fit_chain)(chain, weight, bias)
            chains[path] = chain.requires_grad_(weight.requires_grad)
            cost = chain_cost(chain, shapes[path]) if path in shapes else None
            layers[path] = {
                "kind": kind,
                "channels": list(channels),
                "execution": _execution(net, path, layer, execution, cost),
                "macs": cost and {"plain": cost.plain, "chain": cost.chain, **cost.orders},
            }
    return Charted(net, [Expansion(chains, layers)])


def _check_choices(**given: str | None) -> None:
    choices = {
        "conv": ("cl", "ck", None),
        "linear": ("fc", None),
        "first": ("rm", "m"),
        "init": ("paper", "variance", "preserve"),
        "execution": ("auto", "fold", "chain"),
    }
    for argument, value in given.items():
        if value not in choices[argument]:
            raise ValueError(f"{argument}={value!r}; choose one of {choices[argument]}")


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put the layer's name into an error about it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"layer {path!r}: {error}") from None


def _choose(
    net: nn.Module, conv: str | None, linear: str | None, where: Where
) -> dict[str, nn.Module]:
    """Layers to expand, by path in `net`, each weight once."""
    modules = _candidates(net, conv, linear, where)
    chosen: dict[str, nn.Module] = {}
    slots = Slots.of(net)
    weights: set[str] = set()
    for name, layer in modules.items():
        place = locate(net, f"{name}.weight")
        if place is None:
            if where is None and isinstance(net, Charted):
                continue
            raise ValueError(_reason(net, layer, name))
        weight = slots.canonical[place]
        if weight in weights or (where is None and not slots.tensors[weight].requires_grad):
            continue
        check_chartable(net, place, slots.tensors[weight])
        weights.add(weight)
        chosen[split_name(place)[0]] = layer
    if not chosen:
        raise ValueError(
            f"nothing to expand: conv={conv!r} and linear={linear!r} find no trainable layer; "
            'conv="cl" takes convolutions with a kernel, linear="fc" every Linear but the last, '
            "`where` any others"
        )
    return chosen


def _candidates(
    net: nn.Module, conv: str | None, linear: str | None, where: Where
) -> dict[str, nn.Module]:
    """Layers of the plain model that the strategies take and `where` chooses, by name."""
    kinds = (CONVOLUTIONS if conv else ()) + ((nn.Linear,) if linear else ())
    modules = {**dict(plain_model(net).named_modules()), **coordinate_layers(net)}
    if isinstance(modules[""], (*CONVOLUTIONS, nn.Linear)):
        raise ValueError(
            f"net is itself a {type(net).__name__}, and its weight needs the name of a layer; "
            "expand nn.Sequential(net)"
        )
    factors = {f for m in modules.values() if isinstance(m, Chain) for f in m}
    modules = {n: m for n, m in modules.items() if m not in factors}
    layers = {n: m for n, m in modules.items() if isinstance(m, kinds)}
    if where is None:
        linears = [n for n, m in layers.items() if isinstance(m, nn.Linear)]
        return {
            n: m
            for n, m in layers.items()
            if (n in linears[:-1] if isinstance(m, nn.Linear) else max(m.kernel_size) > 1)
        }
    refused = {n: m for n, m in modules.items() if isinstance(m, (*TRANSPOSED, Chain))}
    if not layers and not refused:
        return {}
    what = f"layer that conv={conv!r}, linear={linear!r} take"
    names = select(
        {n: m for n, m in modules.items() if n in layers or n in refused}, where, what=what
    )
    for name in names:
        if isinstance(modules[name], TRANSPOSED):
            raise ValueError(
                f"layer {name!r} is a transposed convolution: a bias in front of one is no "
                "bias behind it, so its chain is not exactly one layer; leave it out of `where`"
            )
    return {n: modules[n] for n in names}


def _reason(net: nn.Module, layer: nn.Module, name: str) -> str:
    """Why `layer` has no weight that could be expanded."""
    if isinstance(net, Charted):
        return (
            f"the weight of layer {name!r} is computed by a chart already, whose coordinates are "
            "no such weight; leave it out of `where`, or expand first and then apply that chart"
        )
    if "parametrizations" in dict(layer.named_children()):
        return f"layer {name!r} is parametrized by torch.nn.utils.parametrize; remove that first"
    return (
        f"the weight of layer {name!r} is no parameter of it: weight norm, spectral norm or "
        "pruning computes it; remove that first"
    )


def _factors(layer: Any, conv: str | None, linear_depth: int) -> tuple[str, int]:
    """Kind of the chain and number of its factors."""
    if isinstance(layer, nn.Linear):
        return "fc", linear_depth
    sizes = kernels(conv or "cl", layer.kernel_size)
    return ("cl" if min(map(max, sizes)) == 1 else "ck"), len(sizes)


def _shapes(net: nn.Module, example_input: Tensor) -> dict[str, tuple[int, ...]]:
    """Input shape of the layers, by path in `net`."""
    plain = net.deploy(net.default_context()) if isinstance(net, Charted) else net
    shapes = trace(plain, example_input).inputs
    found = {locate(net, f"{n}.weight"): shape for n, shape in shapes.items()}
    return {split_name(place)[0]: shape for place, shape in found.items() if place}


def _execution(
    net: nn.Module, path: str, layer: nn.Module, execution: str, cost: LayerCost | None
) -> str:
    """Fold or chain; a chain only where the layer is a module of its own, called as such."""
    reason = obstacle(net, path, layer)
    if execution == "chain" and reason:
        raise ValueError(f'layer {path!r} cannot run with execution="chain": {reason}; use "fold"')
    if execution == "auto" and cost and not reason:
        return cost.cheaper
    return "chain" if execution == "chain" else "fold"
