"""The convolutional network of the paper on architectural bias (d'Ascoli et al. 2019)."""

import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.nets.checks import at_least
from weightfold.nets.registry import network


@network("vanilla_cnn")
class VanillaCNN(nn.Module):
    """VanillaCNN: three convolutions, each with ReLU and max-pooling, and a linear layer.

    Kernels of 4 (stride 2, padding 2), 5 (padding 2) and 3 (padding 1), pooling of 3 with stride 2.
    The paper gives the number of layers and channels, its code the rest. With 10 classes 143,178
    parameters for 32 x 32 x 3 images; embedded, 110.6 million weights with padding kept.

    Args:
        size: Height and width of the images.
        width: Filters of every convolution.
        stride: Of the first convolution; 1 gives images of half the size layers of the same sizes.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: The images are too small for the three poolings, or `width` is below 1.
    """

    def __init__(
        self,
        *,
        size: int = 32,
        width: int = 64,
        stride: int = 2,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        at_least(1, width=width, stride=stride)
        side = size // stride + 1
        for _ in range(3):
            side = (side - 3) // 2 + 1
        if side < 1:
            raise ValueError(f"size={size} is too small for stride={stride}: the images vanish")
        self.conv1 = nn.Conv2d(in_channels, width, 4, stride=stride, padding=2)
        self.conv2 = nn.Conv2d(width, width, 5, padding=2)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width * side * side, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, size, size) to logits (B, num_classes)."""
        for layer in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.relu(layer(x)), 3, 2)
        return self.fc(x.flatten(1))
