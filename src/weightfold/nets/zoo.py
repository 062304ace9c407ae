"""Networks of other libraries by name: torchvision's, timm's, segmentation-models-pytorch's."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from torch import nn

from weightfold.nets.small_image import FAMILIES, replace_stem, small_image
from weightfold.spec import read_options, read_value

_KEYPOINTS = ("keypointrcnn", "maskrcnn")  # no task has their targets
_SCALARS = (int, float, bool, str)
_DOWNLOADS = ("weights", "progress", "checkpoint_path", "cache_dir")


@cache
def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's models for classification, segmentation and detection."""
    from torchvision import models

    kinds = (models, models.segmentation, models.detection)
    return tuple(
        name
        for kind in kinds
        for name in models.list_models(module=kind)
        if not name.startswith(_KEYPOINTS)
    )


def torchvision_lines() -> dict[str, str]:
    """Name -> one line, of torchvision's models."""
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
    """The torchvision model of that name, untrained.

    A detector takes images normalised already, and `num_classes` counts the ground.

    Args:
        name: One of `torchvision_names()`.
        options: Scalar arguments of the model's class as text ("width_mult", "dropout"),
            `small_image` (see `small_image.py`), `aux_loss` of a segmentation model.
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
    builder = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    accepted |= {key: bool for key in ("aux_loss",) if key in builder}
    values: dict[str, Any] = read_options(name, options, accepted | {"small_image": bool})
    small = bool(values.pop("small_image", False))
    if small and family.__name__ not in FAMILIES:
        raise ValueError(
            f"{name!r}: small_image=true is not known for {family.__name__}; it is for "
            f"{', '.join(FAMILIES)}"
        )
    if "aux_logits" in arguments:  # one output, as every other network, and no slow scipy start
        values = {"aux_logits": False, "init_weights": True} | values
    if "weights_backbone" in builder:
        values["weights_backbone"] = None
    if "image_mean" in arguments:
        values |= {"image_mean": [0.0] * in_channels, "image_std": [1.0] * in_channels}
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


def build_smp(
    name: str, options: Mapping[str, str], *, num_classes: int, in_channels: int
) -> nn.Module:
    """The segmentation-models-pytorch model of that name, untrained.

    Args:
        name: Of an architecture: "unet", "fpn", "linknet", ...
        options: Its arguments, such as encoder_name=resnet18.
        num_classes: Maps of logits.
        in_channels: Channels of the images.

    Raises:
        ImportError: segmentation-models-pytorch is not installed.
        ValueError: An unknown name or option, or one that would load trained weights.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ImportError(
            f"network 'smp/{name}' needs segmentation-models-pytorch: pip install 'weightfold[zoo]'"
        ) from error

    if "encoder_weights" in options:
        raise ValueError(f"'smp/{name}': 'encoder_weights' loads trained weights; leave it out")
    values: dict[str, Any] = {key: read_value(text) for key, text in options.items()}
    try:
        return smp.create_model(
            name, encoder_weights=None, in_channels=in_channels, classes=num_classes, **values
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'smp/{name}' with {values or 'no options'}: {error}") from error
