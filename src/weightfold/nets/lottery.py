"""Networks of the lottery ticket paper (Frankle and Carbin 2019, arXiv:1803.03635, Figure 2)."""

import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightfold.nets.checks import at_least, image_size
from weightfold.nets.registry import network

# So that torch.fx traces the networks: the check branches on the shape.
fx.wrap("image_size")


def _reset(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class GlorotLinear(nn.Linear):
    """Linear layer whose weights are drawn as Glorot's normal, the biases 0."""

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's global generator."""
        _reset(self)


class GlorotConv2d(nn.Conv2d):
    """Convolution whose weights are drawn as Glorot's normal, the biases 0."""

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's global generator."""
        _reset(self)


@network("lenet_300_100")
class LeNet300100(nn.Module):
    """LeNet-300-100: linear layers to 300, 100 (ReLU) and the classes, Glorot normal weights.

    266,610 parameters with 10 classes and 28 x 28 x 1 images.

    Args:
        size: Height and width of the images.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: `size` is below 1.
    """

    def __init__(self, *, size: int = 28, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        at_least(1, size=size)
        self.size = size
        self.fc1 = GlorotLinear(in_channels * size * size, 300)
        self.fc2 = GlorotLinear(300, 100)
        self.fc3 = GlorotLinear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, size, size) to logits (B, num_classes)."""
        image_size(x, self.size)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class _ConvNet(nn.Module):
    """Pairs of 3 x 3 convolutions with a max-pool behind each pair, then three linear layers.

    Args:
        channels: Filters of the convolutions of each pair at `width` 1.
        width: Factor of filters and hidden units.
        size: Height and width of the images.
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        width: float,
        size: int,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"width={width} must be above 0; 1 is the paper's network")
        at_least(2 ** len(channels), size=size)
        self.size = size
        self.pairs = [(f"conv{2 * i + 1}", f"conv{2 * i + 2}") for i in range(len(channels))]
        inputs = in_channels
        for names, full in zip(self.pairs, channels, strict=True):
            outputs = max(1, round(full * width))
            for name in names:
                self.add_module(name, GlorotConv2d(inputs, outputs, 3, padding=1))
                inputs = outputs
        side = size // 2 ** len(channels)
        units = max(1, round(256 * width))
        self.fc1 = GlorotLinear(inputs * side * side, units)
        self.fc2 = GlorotLinear(units, units)
        self.fc3 = GlorotLinear(units, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, size, size) to logits (B, num_classes)."""
        image_size(x, self.size)
        for names in self.pairs:
            for name in names:
                x = F.relu(self.get_submodule(name)(x))
            x = F.max_pool2d(x, 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


@network("conv2")
def conv2(
    *, width: float = 1.0, size: int = 32, num_classes: int = 10, in_channels: int = 3
) -> nn.Module:
    """Conv-2: two 3 x 3 convolutions of 64 filters and three linear layers, Glorot normal weights.

    Convolutions keep the image size; max-pool 2 behind each pair; linear layers to 256, 256 (ReLU)
    and the classes. 4,301,642 parameters for CIFAR-10, 38,720 of them in the convolutions (the
    paper's 4.3M and 38K).

    Args:
        width: Factor of filters and hidden units, above 0.
        size: Height and width of the images.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: `width` is not above 0, or the image too small for the pooling.
    """
    return _ConvNet((64,), width=width, size=size, num_classes=num_classes, in_channels=in_channels)


@network("conv4")
def conv4(
    *, width: float = 1.0, size: int = 32, num_classes: int = 10, in_channels: int = 3
) -> nn.Module:
    """Conv-4: `conv2` with two more convolutions of 128 filters, Glorot normal weights.

    2,425,930 parameters for CIFAR-10, 260,160 of them in the convolutions (the paper's 2.4M and
    260K). Arguments and errors as of `conv2`.
    """
    return _ConvNet(
        (64, 128), width=width, size=size, num_classes=num_classes, in_channels=in_channels
    )


@network("conv6")
def conv6(
    *, width: float = 1.0, size: int = 32, num_classes: int = 10, in_channels: int = 3
) -> nn.Module:
    """Conv-6: `conv4` with two more convolutions of 256 filters, Glorot normal weights.

    2,262,602 parameters for CIFAR-10, 1,145,408 of them in the convolutions. The paper prints 1.7M
    and 1.1M; its list of layers makes 2.3M of the former, and we keep to the list.
    Arguments and errors as of `conv2`.
    """
    return _ConvNet(
        (64, 128, 256), width=width, size=size, num_classes=num_classes, in_channels=in_channels
    )
