"""Variants of torchvision's networks for small studies: narrow ones, SqueezeNet with batch norm."""

from torch import nn
from torchvision.models import MNASNet, SqueezeNet
from torchvision.models.resnet import Bottleneck, ResNet

from weightfold.nets.registry import network


class _NarrowResNet(ResNet):
    """torchvision's, with every stage narrower."""

    def __init__(self, layers: list[int], num_classes: int, divisor: int) -> None:
        self._divisor = divisor
        super().__init__(Bottleneck, layers, num_classes)
        self.fc = nn.Linear(512 // divisor * Bottleneck.expansion, num_classes)

    def _make_layer(self, block: type, planes: int, *args: object, **options: object) -> nn.Module:  # type: ignore[override]
        return super()._make_layer(block, planes // self._divisor, *args, **options)  # type: ignore[arg-type]


@network("resnet50_narrow")
def resnet50_narrow(*, num_classes: int = 1000, divisor: int = 4) -> nn.Module:
    """ResNet-50 of torchvision with a divisor-th of the channels in its four stages.

    Args:
        num_classes: Outputs.
        divisor: Of all channels behind the first convolution: a power of 2 up to 64.

    Raises:
        ValueError: `divisor` is none of these.
    """
    if divisor not in (1, 2, 4, 8, 16, 32, 64):
        raise ValueError(f"divisor={divisor}: it must be a power of 2 from 1 to 64")
    return _NarrowResNet([3, 4, 6, 3], num_classes, divisor)


@network("squeezenet1_0_bn")
def squeezenet1_0_bn(*, num_classes: int = 1000) -> nn.Module:
    """SqueezeNet 1.0 of torchvision, a batch norm after every convolution but the classifier.

    The convolutions keep their names, so that SqueezeNet's trained weights load.

    Args:
        num_classes: Outputs.
    """
    net = SqueezeNet("1_0", num_classes)
    for name, module in list(net.features.named_modules()):
        if isinstance(module, nn.Conv2d):
            before = _ACTIVATIONS[name.rpartition(".")[2]]
            path = ".".join([*name.split(".")[:-1], before])
            norm = nn.BatchNorm2d(module.out_channels)
            net.features.set_submodule(path, nn.Sequential(norm, nn.ReLU(inplace=True)))
    return net


_ACTIVATIONS = {
    "0": "1",
    "squeeze": "squeeze_activation",
    "expand1x1": "expand1x1_activation",
    "expand3x3": "expand3x3_activation",
}
"""Convolution -> the ReLU behind it, by their names in torchvision's SqueezeNet."""


@network("mnasnet_narrow")
def mnasnet_narrow(*, num_classes: int = 1000, alpha: float = 0.25) -> nn.Module:
    """MNASNet of torchvision at any width.

    Args:
        num_classes: Outputs.
        alpha: Factor of the channels, above 0.
    """
    return MNASNet(alpha, num_classes)
