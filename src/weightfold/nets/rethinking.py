"""Small AlexNet and small Inception (Zhang et al. 2017, arXiv:1611.03530, Appendix A)."""

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightfold.nets.checks import at_least, image_size
from weightfold.nets.registry import network

# So that torch.fx traces the networks: the check branches on the shape.
fx.wrap("image_size")


@network("small_alexnet")
class SmallAlexNet(nn.Module):
    """Small AlexNet: two 5 x 5 convolutions with response normalization, and three linear layers.

    Twice convolution (64 filters, image size kept), ReLU, max-pool 3 with stride 2, local response
    normalization; then linear layers to 384, 192 (ReLU) and to `num_classes`. 1,387,786 parameters
    with 10 classes and 28 x 28 x 3 images, as the paper counts them. The paper gives neither the
    filters, which follow from that count, nor the normalization's constants: ours are those of
    TensorFlow's CIFAR-10 tutorial (9 channels, alpha / 9 = 0.001 / 9, beta 0.75, k 1).

    Args:
        size: Height and width of the images, at least 3.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: `size` is below 3.
    """

    def __init__(self, *, size: int = 28, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        at_least(3, size=size)
        self.size = size
        self.conv1 = nn.Conv2d(in_channels, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        # ceil_mode: halves rounding up, as "same" padding at stride 2 does.
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)
        side = (size + 3) // 4
        self.fc1 = nn.Linear(64 * side * side, 384)
        self.fc2 = nn.Linear(384, 192)
        self.fc3 = nn.Linear(192, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, size, size) to logits (B, num_classes)."""
        image_size(x, self.size)
        x = self.norm(self.pool(F.relu(self.conv1(x))))
        x = self.norm(self.pool(F.relu(self.conv2(x))))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class _Unit(nn.Module):
    """Convolution without bias, batch norm that shifts but does not scale, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        # A buffer of ones: nothing to train, and every backend takes it.
        del self.norm.weight
        self.norm.register_buffer("weight", torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class _Inception(nn.Module):
    """A 1 x 1 and a 3 x 3 unit side by side, their channels one after the other."""

    def __init__(self, inputs: int, pointwise: int, spatial: int) -> None:
        super().__init__()
        self.pointwise = _Unit(inputs, pointwise, 1)
        self.spatial = _Unit(inputs, spatial, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pointwise(x), self.spatial(x)], dim=1)


class _Downsample(nn.Module):
    """A 3 x 3 unit with stride 2 beside a max-pool 3 with stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.spatial = _Unit(inputs, outputs, 3, stride=2)
        self.pool = nn.MaxPool2d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.spatial(x), self.pool(x)], dim=1)


@network("small_inception")
class SmallInception(nn.Module):
    """Small Inception: a convolution, three stages of Inception blocks, and the channels' means.

    A 3 x 3 convolution to 96 channels, then blocks of c1 + c3 channels from 1 x 1 and 3 x 3
    convolutions, and halvings (a convolution of stride 2 beside a max-pool): 32+32, 32+48, halving
    with 80; 112+48, 96+64, 80+80, 48+96, halving with 96; 176+160 twice; the mean over the image
    and a linear layer. Every convolution is followed by batch norm and ReLU. 1,649,402 parameters
    with 10 classes, as the paper counts them: one trained vector a convolution, which we take for
    batch norm's shift, without its scale and without a bias of the convolution.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = _Unit(in_channels, 96, 3)
        self.stage1 = nn.Sequential(
            _Inception(96, 32, 32), _Inception(64, 32, 48), _Downsample(80, 80)
        )
        self.stage2 = nn.Sequential(
            _Inception(160, 112, 48),
            _Inception(160, 96, 64),
            _Inception(160, 80, 80),
            _Inception(160, 48, 96),
            _Downsample(144, 96),
        )
        self.stage3 = nn.Sequential(_Inception(240, 176, 160), _Inception(336, 176, 160))
        self.fc = nn.Linear(336, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, H, W), of 28 x 28 in the paper, to logits."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.fc(x.mean((2, 3)))
