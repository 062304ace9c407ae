"""ResNets of 6 n + 2 layers for small images at any width (He et al. 2016, arXiv:1512.03385)."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from weightfold.nets.checks import at_least
from weightfold.nets.registry import network


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of two convolutions, the first with `stride`."""
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
    rest = [BasicBlock(outputs, outputs) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), *rest)


@network("resnet_narrow")
class NarrowResNet(nn.Module):
    """ResNet-20/32/44/56/... for 32 x 32 images, `width` channels in its first stage (paper: 16).

    A 3 x 3 convolution, then stages `layer1`, `layer2`, `layer3` of torchvision's basic blocks with
    `width` times 1, 2, 4 channels, each halving the image but the first; the mean over the image
    and a linear layer. Where a stage widens, the shortcut is a 1 x 1 convolution with batch norm;
    the paper's for CIFAR pads with zeros and has no parameters. So ResNet-20 of width 16 has
    272,474 parameters with 10 classes, 2,752 more than the paper's.

    Args:
        depth: Layers: 8, 14, 20, ..., 6 n + 2 with n blocks a stage.
        width: Channels of the first stage.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: Another depth, or `width` below 1.
    """

    def __init__(
        self, *, depth: int = 20, width: int = 8, num_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth={depth} must be 8, 14, 20, 26, ... (6 n + 2)")
        at_least(1, width=width)
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, H, W) to logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
