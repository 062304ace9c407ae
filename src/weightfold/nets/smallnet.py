"""The two small networks of the ExpandNets paper (Guo, Alvarez, Salzmann, NeurIPS 2020, Sec. 4)."""

import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightfold.nets.registry import network


def _same_padding(kernel_size: int) -> int:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size} must be odd and positive; use 3, 5, 7 or 9")
    return (kernel_size - 1) // 2


def _check_size(x: Tensor) -> None:
    if x.shape[-2:] != (32, 32):
        raise ValueError(
            f"images of {tuple(x.shape[-2:])} pixels given; this network takes 32 x 32"
        )


# So that torch.fx traces the networks: the check branches on the shape.
fx.wrap("_check_size")


@network("smallnet_a")
class SmallNetA(nn.Module):
    """SmallNet with 3 convolutions, of the ExpandNets paper's Tables 1, 8 and 9 (32 x 32 images).

    Three times convolution (8, 16, 32 filters, with bias), batch norm, ReLU, max-pool 2; then
    linear layers to 64 (ReLU) and to `num_classes`. 66,186 parameters with kernel 7 and 10 classes.
    As in the authors' code kernel 3 goes without padding and kernel 7 with 3; that the other
    kernels keep the image size too (padding (k - 1) / 2) is our choice.

    Args:
        kernel_size: Odd.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: `kernel_size` is not odd and positive.
    """

    def __init__(
        self, *, kernel_size: int = 7, num_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        padding = 0 if kernel_size == 3 else _same_padding(kernel_size)
        self.conv1 = nn.Conv2d(in_channels, 8, kernel_size, padding=padding)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, kernel_size, padding=padding)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 32, kernel_size, padding=padding)
        self.bn3 = nn.BatchNorm2d(32)
        side = 2 if kernel_size == 3 else 4
        self.fc1 = nn.Linear(32 * side * side, 64)
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, 32, 32) to logits (B, num_classes)."""
        _check_size(x)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


@network("smallnet_b")
class SmallNetB(nn.Module):
    """SmallNet with 4 convolutions, of the ExpandNets paper's Tables 6 and 7 (32 x 32 images).

    Four times convolution (8, 16, 32, 64 filters, with bias, image size kept), batch norm, ReLU,
    max-pool 2; then linear layers to 64 (ReLU) and to `num_classes`. 150,346 parameters with
    kernel 7 and 10 classes, as Table 6 prints; that kernels 3, 5 and 9 keep the image size too is
    our reading.

    Args:
        kernel_size: Odd.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: `kernel_size` is not odd and positive.
    """

    def __init__(
        self, *, kernel_size: int = 7, num_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        padding = _same_padding(kernel_size)
        self.conv1 = nn.Conv2d(in_channels, 8, kernel_size, padding=padding)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, kernel_size, padding=padding)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 32, kernel_size, padding=padding)
        self.bn3 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 64, kernel_size, padding=padding)
        self.bn4 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(256, 64)
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, 32, 32) to logits (B, num_classes)."""
        _check_size(x)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = F.max_pool2d(F.relu(self.bn4(self.conv4(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))
