"""Variants: ways to train one compact network, written "cl", "ck+fc,rate=4,first=m", "acnet"."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from weightfold.methods.expand.twin import nonlinear_twin
from weightfold.methods.expand.verb import expand
from weightfold.nets import asymmetric, build
from weightfold.spec import parse_spec, read_options

EXPANSIONS: dict[str, dict[str, Any]] = {
    "cl": {"conv": "cl"},
    "ck": {"conv": "ck"},
    "fc": {"conv": None, "linear": "fc"},
    "cl+fc": {"conv": "cl", "linear": "fc"},
    "ck+fc": {"conv": "ck", "linear": "fc"},
}

OPTIONS: dict[str, type] = {
    "rate": float,
    "first": str,
    "init": str,
    "execution": str,
    "start": str,
    "nonlinear": bool,
}


def make_net(
    model: str | Callable[[int], nn.Module],
    variant: str,
    *,
    seed: int,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> nn.Module:
    """A network with seeded initial weights; compact and expanded share those of a seed.

    Args:
        model: Network spec, or a function that makes the network of a seed.
        variant: "compact"; "acnet", with asymmetric branches; or one of `EXPANSIONS` with options
            rate, first, init and execution of `wf.expand`; start=folded: the compact network with
            the folded weights of the untrained expansion (Table 8); nonlinear=true: the
            expansion's nonlinear twin.
        seed: Of all initial weights.
        num_classes: Number of logits.
        image_shape: (channels, height, width).

    Raises:
        ValueError: The variant is unknown or has other options.
    """
    name, texts = parse_spec(variant)
    if name not in (*EXPANSIONS, "compact", "acnet"):
        raise ValueError(f"variant={variant!r}; choose compact, acnet, {', '.join(EXPANSIONS)}")
    options = read_options(name, texts, OPTIONS if name in EXPANSIONS else {})
    start, nonlinear = options.pop("start", None), options.pop("nonlinear", False)
    if start not in (None, "folded"):
        raise ValueError(f"variant={variant!r}: start={start!r}; the only other start is 'folded'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if callable(model):
            net = model(seed)
        else:
            net = build(model, num_classes=num_classes, in_channels=image_shape[0])
    if name == "compact":
        return net
    example = torch.zeros(2, *image_shape)
    if name == "acnet":
        return asymmetric(net, example_input=example, seed=seed)
    expanded = expand(net, **EXPANSIONS[name], **options, seed=seed)  # type: ignore[arg-type]
    if nonlinear:
        return nonlinear_twin(expanded)
    return expanded.deploy() if start else expanded


def shape_of(variant: str) -> str:
    """A variant with tensors of the same shapes, whose making reads no weights.

    Raises:
        ValueError: As `parse_spec`.
    """
    name, texts = parse_spec(variant)
    kept = [f"{key}={texts[key]}" for key in ("rate", "first") if key in texts]
    return "compact" if name == "acnet" else ",".join([name, *kept])
