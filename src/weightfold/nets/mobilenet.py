"""MobileNet V1 (Howard et al. 2017, arXiv:1704.04861, Table 1), width 1."""

from torch import Tensor, nn

from weightfold.nets.registry import network

# Output channels and stride of the 13 depthwise-separable blocks.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    """Convolution that keeps the image size up to its stride, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


@network("mobilenet_v1")
class MobileNetV1(nn.Module):
    """MobileNet V1, width 1: 13 depthwise-separable blocks; small_image=true for 32 x 32 images.

    4,231,976 parameters with 1000 classes. `small_image` gives the first convolution stride 1 and
    leaves the four later strides of 2, as is customary for CIFAR: 32 x 32 ends as 2 x 2. Which
    variant the ExpandNets paper trains on CIFAR (Table 2) is not known; this is our choice.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        small_image: Stride 1 instead of 2 in the first convolution.
    """

    def __init__(
        self, *, num_classes: int = 1000, in_channels: int = 3, small_image: bool = False
    ) -> None:
        super().__init__()
        layers = [_convolution(in_channels, 32, 3, 1 if small_image else 2, groups=1)]
        channels = 32
        for outputs, stride in _BLOCKS:
            depthwise = _convolution(channels, channels, 3, stride, groups=channels)
            pointwise = _convolution(channels, outputs, 1, 1, groups=1)
            layers.append(nn.Sequential(*depthwise, *pointwise))
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, H, W) to logits (B, num_classes)."""
        return self.classifier(self.features(x).mean((2, 3)))
