"""LeNet as in the paper on intrinsic dimension (Li et al. 2018, arXiv:1804.08838)."""

import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightfold.nets.checks import at_least, image_size
from weightfold.nets.registry import network

# So that torch.fx traces the network: the check branches on the shape.
fx.wrap("image_size")


@network("lenet")
class LeNet(nn.Module):
    """LeNet: two unpadded 5 x 5 convolutions and three linear layers; size=32 for CIFAR-10.

    Twice convolution (6, 16 filters, with bias), ReLU, max-pool 2; then linear layers to 120 and
    84 (ReLU) and to `num_classes`. With 10 classes 44,426 parameters for 28 x 28 x 1 images and
    62,006 for 32 x 32 x 3, as the paper counts them. That the activations are ReLU and the
    pooling takes the maximum is our choice.

    Args:
        size: Height and width of the images, at least 16.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: `size` is below 16.
    """

    def __init__(self, *, size: int = 28, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        at_least(16, size=size)
        self.size = size
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        side = ((size - 4) // 2 - 4) // 2
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, size, size) to logits (B, num_classes)."""
        image_size(x, self.size)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))
