"""Variants of torchvision's networks for small images (32 x 32).

These networks halve the image five times (SqueezeNet four times). The variant leaves out the first
two: the first convolution becomes 3 x 3 with stride 1 and padding 1, and what halves next, a
max-pool or a stage with stride 2, no longer does. So a 32 x 32 image ends as a 4 x 4 map (8 x 8 in
SqueezeNet), as in the ResNets and the MobileNetV2 that are customary for CIFAR. For the other
families the same rule is our choice.
"""

from typing import Any

from torch import nn

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ResNet": ("conv1", ("maxpool",)),
    "DenseNet": ("features.conv0", ("features.pool0",)),
    "SqueezeNet": ("features.0", ("features.2",)),
    "ShuffleNetV2": ("conv1.0", ("maxpool",)),
    "MobileNetV2": ("features.0.0", ("features.2",)),
    "MobileNetV3": ("features.0.0", ("features.1", "features.2")),
    "EfficientNet": ("features.0.0", ("features.2",)),
    "MNASNet": ("layers.0", ("layers.8",)),
    "RegNet": ("stem.0", ("trunk_output.block1",)),
}
"""Class -> the first convolution, and the places of which the first that halves stops halving."""


def small_image(net: nn.Module) -> None:
    """Makes `net`, of one of the `FAMILIES` and just built, its variant for small images."""
    stem, places = FAMILIES[type(net).__name__]
    convolution = net.get_submodule(stem)
    assert isinstance(convolution, nn.Conv2d)
    if convolution.kernel_size != (3, 3):
        convolution = replace_stem(net, stem, kernel_size=3)
    convolution.stride, convolution.padding = (1, 1), (1, 1)
    for place in places:
        if _stop_halving(net, place):
            return
    raise RuntimeError(f"this torchvision's {type(net).__name__} halves at none of {places}")


def _stop_halving(net: nn.Module, place: str) -> bool:
    """Makes the max-pool at `place` an Identity, or strides 2 below it 1; says whether it did."""
    module = net.get_submodule(place)
    if isinstance(module, nn.MaxPool2d):
        net.set_submodule(place, nn.Identity())
        return True
    halving = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for convolution in halving:
        convolution.stride = (1, 1)
    return bool(halving)


def replace_stem(
    net: nn.Module, name: str, *, in_channels: int | None = None, kernel_size: int | None = None
) -> nn.Conv2d:
    """Puts a convolution with other input channels or kernel in the place of `name`.

    Its weights are normal with the old ones' spread, scaled as initialisations by fan are (by one
    over the kernel size); its bias, if there is one, is zero.
    """
    old: Any = net.get_submodule(name)
    size = old.kernel_size if kernel_size is None else (kernel_size, kernel_size)
    new = nn.Conv2d(
        old.in_channels if in_channels is None else in_channels,
        old.out_channels,
        size,
        old.stride,
        old.padding,
        bias=old.bias is not None,
    )
    nn.init.normal_(new.weight, std=old.weight.std().item() * old.kernel_size[0] / size[0])
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    net.set_submodule(name, new)
    return new
