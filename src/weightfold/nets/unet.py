"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597, Figure 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.nets.checks import at_least
from weightfold.nets.registry import network


class _Pair(nn.Module):
    """Two 3 x 3 convolutions, each with batch norm (if wanted) and ReLU."""

    def __init__(self, inputs: int, outputs: int, batch_norm: bool) -> None:
        super().__init__()
        for i, source in ((1, inputs), (2, outputs)):
            conv = nn.Conv2d(source, outputs, 3, padding=1, bias=not batch_norm)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", nn.BatchNorm2d(outputs) if batch_norm else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        for i in (1, 2):
            x = F.relu(self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(x)))
        return x


@network("unet")
class UNet(nn.Module):
    """U-Net for segmentation: `width` channels at first (64 in the paper), `depth` halvings (4).

    The contracting path is `down1`, ..., `down{depth + 1}` (so that `where="down*"` chooses its
    convolutions), the expansive path `up{depth}`, ..., `up1`, each with a transposed convolution
    `up*.grow` 2 x 2 in stride 2, and `head`. Two differences to the paper: convolutions are padded,
    so that outputs are as large as inputs, of any size from 2**depth; weights are He's, as the
    paper asks, and there is no dropout at the end of the contracting path. 31,030,593 parameters
    at the paper's width with one class and one channel, and no batch norm.

    Args:
        width: Channels of the first stage; they double with every halving.
        depth: Halvings.
        batch_norm: Behind every 3 x 3 convolution, in place of its bias.
        num_classes: Maps of logits.
        in_channels: Channels of the images.

    Raises:
        ValueError: `width` or `depth` below 1.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 4,
        batch_norm: bool = False,
        num_classes: int = 2,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        at_least(1, width=width, depth=depth)
        self.depth = depth
        channels = [width * 2**i for i in range(depth + 1)]
        for i, outputs in enumerate(channels):
            source = in_channels if i == 0 else channels[i - 1]
            self.add_module(f"down{i + 1}", _Pair(source, outputs, batch_norm))
        for i in reversed(range(depth)):
            up = _Pair(2 * channels[i], channels[i], batch_norm)
            up.add_module("grow", nn.ConvTranspose2d(channels[i + 1], channels[i], 2, stride=2))
            self.add_module(f"up{i + 1}", up)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, H, W)."""
        skips = []
        for i in range(self.depth):
            x = self.get_submodule(f"down{i + 1}")(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.get_submodule(f"down{self.depth + 1}")(x)
        for i in reversed(range(self.depth)):
            stage, skip = self.get_submodule(f"up{i + 1}"), skips[i]
            x = stage.get_submodule("grow")(x)
            # A side of odd length lost its last row in the halving.
            missing = [skip.shape[d] - x.shape[d] for d in (-1, -2)]
            x = F.pad(x, [0, missing[0], 0, missing[1]])
            x = stage(torch.cat([skip, x], dim=1))
        return self.head(x)
