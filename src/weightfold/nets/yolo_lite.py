"""YOLO-LITE (Huang, Pedoeem and Chen 2018, arXiv:1811.05588)."""

import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.nets.checks import at_least
from weightfold.nets.registry import network

_WIDTHS = (1, 2, 4, 8, 8)


@network("yolo_lite")
class YoloLite(nn.Module):
    """YOLO-LITE for detection: five 3 x 3 convolutions `backbone.conv*`, each halved, and a head.

    Of `width` (16 in the paper) times 1, 2, 4, 8, 8 filters, each with leaky ReLU (slope 0.1) and
    max-pool 2; the head is a 3 x 3 convolution of 16 `width` filters and a 1 x 1 convolution. An
    image of 224 x 224 gives a map of 7 x 7. 542,573 parameters with the 125 maps of five anchors
    and 20 classes, and 241 million multiply-adds at 224 x 224 (482 MFLOP in the paper's count).

    Args:
        width: Filters of the first convolution.
        batch_norm: Behind every 3 x 3 convolution, in place of its bias; the paper is without.
        num_classes: Maps that the head gives: for task "detect", anchors (5 + classes).
        in_channels: Channels of the images.

    Raises:
        ValueError: `width` below 1.
    """

    def __init__(
        self,
        width: int = 16,
        batch_norm: bool = False,
        num_classes: int = 125,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        at_least(1, width=width)
        channels = [in_channels, *(width * times for times in _WIDTHS)]
        self.backbone = nn.Module()
        for i in range(len(_WIDTHS)):
            _add(self.backbone, f"{i + 1}", channels[i], channels[i + 1], batch_norm)
        self.head = nn.Module()
        _add(self.head, "1", channels[-1], 16 * width, batch_norm)
        self.head.add_module("conv2", nn.Conv2d(16 * width, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) to maps (B, num_classes, H // 32, W // 32)."""
        for i in range(len(_WIDTHS)):
            x = F.max_pool2d(_layer(self.backbone, f"{i + 1}", x), 2)
        return self.head.get_submodule("conv2")(_layer(self.head, "1", x))


def _add(stage: nn.Module, name: str, inputs: int, outputs: int, batch_norm: bool) -> None:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)
    nn.init.kaiming_normal_(conv.weight, a=0.1, nonlinearity="leaky_relu")
    stage.add_module(f"conv{name}", conv)
    stage.add_module(f"norm{name}", nn.BatchNorm2d(outputs) if batch_norm else nn.Identity())


def _layer(stage: nn.Module, name: str, x: Tensor) -> Tensor:
    x = stage.get_submodule(f"norm{name}")(stage.get_submodule(f"conv{name}")(x))
    return F.leaky_relu(x, 0.1)
