"""VGG for 32 x 32 images at any width (Simonyan and Zisserman 2015, arXiv:1409.1556, Table 1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.nets.checks import at_least
from weightfold.nets.noise import CovariateNoise
from weightfold.nets.registry import network

_LAYERS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth -> convolutions of each stage."""


class HeConv2d(nn.Conv2d):
    """Convolution with weights drawn as He's normal for ReLU, by outputs, and biases 0."""

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's global generator."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class _Stage(nn.Module):
    """3 x 3 convolutions `conv1`, `conv2`, ..., each with ReLU, then max-pool 2."""

    def __init__(
        self, inputs: int, outputs: int, layers: int, batch_norm: bool, noise: bool
    ) -> None:
        super().__init__()
        self.layers = range(1, layers + 1)
        for i in self.layers:
            # Without batch norm torch's usual weights let the signal die away in deep networks.
            convolution = nn.Conv2d if batch_norm else HeConv2d
            source = inputs if i == 1 else outputs
            self.add_module(
                f"conv{i}", convolution(source, outputs, 3, padding=1, bias=not batch_norm)
            )
            norm: nn.Module = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
            self.add_module(f"norm{i}", nn.Sequential(norm, CovariateNoise()) if noise else norm)

    def forward(self, x: Tensor) -> Tensor:
        for i in self.layers:
            x = F.relu(self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(x)))
        return F.max_pool2d(x, 2)


@network("vgg_narrow")
class NarrowVGG(nn.Module):
    """VGG-11/13/16/19 for 32 x 32 images, `width` channels in its first stage (64 in the paper).

    Five stages `stage1` to `stage5` of `width` times 1, 2, 4, 8, 8 channels, then the mean over
    the image and one linear layer, as is customary for CIFAR, in place of the paper's three.
    579,098 parameters with depth 11, width 16 and 10 classes.

    Args:
        depth: 11, 13, 16 or 19: convolutions and the paper's three linear layers.
        width: Channels of the first stage.
        batch_norm: A batch norm behind every convolution in place of its bias.
        noise: `CovariateNoise` behind every batch norm.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: Another depth, `width` below 1, or `noise` without batch norm.
    """

    def __init__(
        self,
        *,
        depth: int = 11,
        width: int = 16,
        batch_norm: bool = True,
        noise: bool = False,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if depth not in _LAYERS:
            raise ValueError(f"depth={depth} must be one of {', '.join(map(str, _LAYERS))}")
        at_least(1, width=width)
        if noise and not batch_norm:
            raise ValueError("noise=True is behind batch norms; batch_norm=False leaves none")
        inputs = in_channels
        for i, (layers, factor) in enumerate(zip(_LAYERS[depth], (1, 2, 4, 8, 8), strict=True), 1):
            self.add_module(f"stage{i}", _Stage(inputs, factor * width, layers, batch_norm, noise))
            inputs = factor * width
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, H, W), H and W at least 32, to logits (B, num_classes)."""
        for i in range(1, 6):
            x = self.get_submodule(f"stage{i}")(x)
        return self.fc(x.mean((2, 3)))
