"""A network for the 8 x 8 grayscale digits that scikit-learn ships."""

import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightfold.nets.checks import image_size
from weightfold.nets.registry import network

# So that torch.fx traces the network: the check branches on the shape.
fx.wrap("image_size")


@network("digitnet")
class DigitNet(nn.Module):
    """Two 5 x 5 convolutions and two linear layers for 8 x 8 images; trains in seconds.

    Twice convolution (4, 8 filters, with bias, image size kept), batch norm, ReLU, max-pool 2;
    then linear layers to 16 (ReLU) and to `num_classes`. 1,634 parameters with 10 classes and one
    channel. Made for the demo and small on purpose, so that accuracy has room above it.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 4, 5, padding=2)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 5, padding=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc1 = nn.Linear(8 * 2 * 2, 16)
        self.fc2 = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, 8, 8) to logits (B, num_classes)."""
        image_size(x, 8)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))
