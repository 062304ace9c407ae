"""wf.expand: choose layers and train them as products of linear layers."""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from weightfold.core.arguments import (
    check_choices,
    check_memory,
    checked_seed,
    gathered,
    real,
    unwrapped,
)
from weightfold.core.charted import Charted
from weightfold.core.select import Where, coordinate_layers, locate, plain_model, select
from weightfold.core.slots import Slots, check_chartable, split_name
from weightfold.methods.expand.chain import (
    CONVOLUTIONS,
    Chain,
    chains_bias,
    kernels,
    make_chain,
    naming,
    obstacle,
    widths,
)
from weightfold.methods.expand.chart import Expansion
from weightfold.methods.expand.cost import LayerCost, chain_cost
from weightfold.methods.expand.initial import fit_chain, match_variance
from weightfold.methods.expand.options import ExpandKeywords, ExpandOptions
from weightfold.trace import trace

CHOICES = {
    "conv": ("cl", "ck", None),
    "linear": ("fc", None),
    "init": ("paper", "variance", "preserve"),
}
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def expand(
    net: nn.Module,
    rate: float = 4,
    conv: Literal["cl", "ck"] | None = "cl",
    *,
    linear: Literal["fc"] | None = None,
    where: Where = None,
    init: Literal["paper", "variance", "preserve"] = "paper",
    seed: int | None = None,
    **options: Unpack[ExpandKeywords],
) -> Charted:
    """Expand layers of `net` into products of linear layers (ExpandNets, Guo et al. 2020).

    >>> import torch, weightfold as wf
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
    >>> net = wf.expand(model, rate=2, seed=0)
    >>> [tuple(p.shape[:2]) for p in net.parameters() if p.dim() > 1]
    [(6, 3), (16, 6), (8, 16)]
    >>> net.deploy()
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
    )

    Args:
        net: A module or a Charted net; left unchanged. With "paper" and "variance" the expanded
            layers start anew; with "preserve" they start as the function `net` is.
        rate: Expansion rate r: inner widths are int(r m), int(r n) (section 3.1), below 1 too.
        conv: "cl" (1x1, kxk, 1x1), "ck" ((k - 1) / 2 kernels of 3; falls to "cl" where that is
            one), or None. Grouped convolutions expand inside each group.
        linear: "fc" expands every Linear but the last into `linear_depth` layers.
        where: None: every convolution with a kernel larger than 1 (and, with "fc", every Linear
            but the last) that trains; or names, globs, layer types, a predicate `(name, layer)`.
        init: "paper": torch's default for each factor; "variance": the folded std is the plain
            layer's; "preserve": the same function as `net` (exact for CL and FC at rate >= 1,
            else least squares; `net.charts[0].residuals` tells how near).
        seed: Seeds the factors; None draws from torch's global generator.
        **options: How chains are made and run: fields of `ExpandOptions`, or one as `options`.

    Returns:
        The net in expanded coordinates.

    Raises:
        ValueError: An argument is none of its choices, nothing is chosen, a kernel is even with
            "ck", a rate leaves no channels, or a chosen layer cannot be expanded.
        TypeError: `net` is no module, or an argument is of another type.
        MemoryError: The factors take more memory than there is.
    """
    net = unwrapped(net)
    check_choices({"conv": conv, "linear": linear, "init": init}, CHOICES)
    made = gathered(ExpandOptions, options)
    if not 0 < (rate := real(rate, "rate")) < float("inf"):
        raise ValueError(f"rate={rate}; the expansion rate is a positive number")
    seed = seed if seed is None else checked_seed(seed)
    chosen = _choose(net, conv, linear, where)
    plans = _plans(net, chosen, rate, conv, made)
    _check_size(net, plans, rate)
    tensors = dict(net.named_parameters(remove_duplicate=False))
    example = made.example_input
    shapes = _shapes(net, example) if example is not None else {}
    chains: dict[str, Chain] = {}
    layers: dict[str, dict[str, Any]] = {}
    with torch.device("cpu"), torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        for path, (kind, channels) in plans.items():
            weight = tensors[f"{path}.weight"]
            bias = tensors[f"{path}.bias"] if chains_bias(tensors, path) else None
            with naming(path):
                chain = make_chain(chosen[path], channels, kind, bias is not None)
                chain.to(weight.device, weight.dtype)
                if init != "paper":
                    (match_variance if init == "variance" else fit_chain)(chain, weight, bias)
            chains[path] = chain.requires_grad_(weight.requires_grad)
            cost = chain_cost(chain, shapes[path]) if path in shapes else None
            layers[path] = {
                "kind": kind,
                "channels": list(channels),
                "execution": _execution(net, path, chosen[path], made.execution, cost),
                "macs": cost and {"plain": cost.plain, "chain": cost.chain, **cost.orders},
            }
    return Charted(net, [Expansion(chains, layers)])


def _plans(
    net: nn.Module,
    chosen: Mapping[str, nn.Module],
    rate: float,
    conv: str | None,
    options: ExpandOptions,
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Kind and widths of every chain, by path in `net`."""
    opening = next((m for m in plain_model(net).modules() if isinstance(m, CONVOLUTIONS)), None)
    plans: dict[str, tuple[str, tuple[int, ...]]] = {}
    for path, layer in chosen.items():
        with naming(path):
            kind, length = _factors(layer, conv, options.linear_depth)
            first = options.first if layer is opening else "rm"
            plans[path] = kind, widths(layer, rate, length, first)
    return plans


def _check_size(
    net: nn.Module, plans: Mapping[str, tuple[str, tuple[int, ...]]], rate: float
) -> None:
    """Refuse factors that no memory holds."""
    tensors = dict(net.named_parameters(remove_duplicate=False))
    size = 0
    for path, (kind, channels) in plans.items():
        weight = tensors[f"{path}.weight"]
        groups = channels[0] // weight.shape[1]
        sizes = kernels(kind, tuple(weight.shape[2:])) if kind != "fc" else [()] * len(channels)
        for (a, b), kernel in zip(pairwise(channels), sizes, strict=False):
            size += a * b // groups * prod(kernel) * weight.element_size()
    check_memory(f"rate={rate} makes factors", size)


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
        if not (dtype := slots.tensors[weight].dtype).is_floating_point:
            raise ValueError(f"layer {name!r}: its weight is of {dtype}; only real ones expand")
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
