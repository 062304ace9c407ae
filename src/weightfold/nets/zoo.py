"""Networks of other libraries by name: torchvision's classification models, and timm's."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from torch import nn

from weightfold.nets.small_image import FAMILIES, replace_stem, small_image
from weightfold.spec import read_options, read_value

_SCALARS = (int, float, bool, str)
_DOWNLOADS = ("weights", "progress", "checkpoint_path", "cache_dir")


@cache
def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's classification models."""
    import torchvision

    return tuple(torchvision.models.list_models(module=torchvision.models))


def torchvision_lines() -> dict[str, str]:
    """Name -> one line, of torchvision's classification models."""
    families = {name: _family(name).__name__ for name in torchvision_names()}
    return {
        name: f"torchvision's {family}" + ("; has small_image=true" if family in FAMILIES else "")
        for name, family in families.items()
    }


def _family(name: str) -> type[nn.Module]:
    """The class that torchvision's builder of that name returns."""
    import torchvision

    return inspect.signature(torchvision.models.get_model_builder(name)).return_annotation


def build_torchvision(
    name: str, options: Mapping[str, str], *, num_classes: int, in_channels: int
) -> nn.Module:
    """The torchvision classification model of that name, untrained.

    Args:
        name: One of `torchvision_names()`.
        options: Scalar arguments of the model's class as text ("width_mult", "dropout"), and
            `small_image` (see `small_image.py`).
        num_classes: Outputs.
        in_channels: Channels of the images; other than 3 renews the first convolution.

    Raises:
        ValueError: An unknown option, one that the name itself decides, a bad value, or
            `small_image` for a family without such a variant.
    """
    import torchvision

    family = _family(name)
    arguments = inspect.signature(family).parameters
    accepted: dict[str, Any] = {
        key: p.annotation if p.annotation in _SCALARS else type(p.default)
        for key, p in arguments.items()
        if key != "num_classes" and (p.annotation in _SCALARS or type(p.default) in _SCALARS)
    }
    values = read_options(name, options, accepted | {"small_image": bool})
    small = bool(values.pop("small_image", False))
    if small and family.__name__ not in FAMILIES:
        raise ValueError(
            f"{name!r}: small_image=true is not known for {family.__name__}; it is for "
            f"{', '.join(FAMILIES)}"
        )
    if "aux_logits" in arguments:  # one output, as every other network, and no slow scipy start
        values = {"aux_logits": False, "init_weights": True} | values
    try:
        net = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **values)
    except TypeError as error:
        raise ValueError(f"{name!r} does not take these options: {error}") from error
    if small:
        small_image(net)
    if in_channels != 3:
        stem = next(key for key, module in net.named_modules() if isinstance(module, nn.Conv2d))
        replace_stem(net, stem, in_channels=in_channels)
    return net


def build_timm(
    name: str, options: Mapping[str, str], *, num_classes: int, in_channels: int
) -> nn.Module:
    """The timm model of that name, untrained.

    Raises:
        ImportError: timm is not installed.
        ValueError: An unknown name (with near ones), an option that timm does not take, or one
            that would load trained weights.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"network 'timm/{name}' needs timm: pip install 'weightfold[zoo]'"
        ) from error

    if not timm.is_model(name):
        near = ", ".join(get_close_matches(name, timm.list_models(), n=4)) or "none"
        raise ValueError(f"timm has no model {name!r}; near: {near}")
    for key in options:
        if key.startswith("pretrained") or key in _DOWNLOADS:
            raise ValueError(f"'timm/{name}': {key!r} loads trained weights; leave it out")
    values: dict[str, Any] = {key: read_value(text) for key, text in options.items()}
    try:
        return timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **values
        )
    except TypeError as error:
        raise ValueError(f"'timm/{name}' does not take these options: {error}") from error
