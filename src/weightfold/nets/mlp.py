"""Fully-connected networks of one width, as those of Li et al. 2018 and Zhang et al. 2017."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, fx, nn

from weightfold.nets.checks import at_least, image_size
from weightfold.nets.registry import network

# So that torch.fx traces the network: the check branches on the shape.
fx.wrap("image_size")


@network("mlp")
class MLP(nn.Module):
    """Fully-connected network: `depth` hidden layers of `width` units (ReLU) and an output layer.

    The linear layers are `fc1`, `fc2`, ..., with torch's usual initial weights. With 10 classes:
    199,210 parameters for 28 x 28 x 1 and 656,810 for 32 x 32 x 3 images, and 959,610 with 5
    hidden layers of 400 units for 28 x 28 x 1 (Li et al. 2018, arXiv:1804.08838); 1,209,866 and
    1,735,178 with 1 and 3 hidden layers of 512 units for 28 x 28 x 3 (Zhang et al. 2017,
    arXiv:1611.03530).

    Args:
        depth: Hidden layers, at least 0.
        width: Units of each.
        bias: Whether the layers have biases.
        size: Height and width of the images.
        dropout: Chance of a hidden unit to be left out in training, at least 0 and below 1.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: An option outside its range.
    """

    def __init__(
        self,
        *,
        depth: int = 2,
        width: int = 200,
        bias: bool = True,
        size: int = 28,
        dropout: float = 0.0,
        num_classes: int = 10,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        at_least(0, depth=depth)
        at_least(1, width=width, size=size)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
        self.size = size
        units = [in_channels * size * size, *[width] * depth, num_classes]
        self.linear = [f"fc{i}" for i in range(1, depth + 2)]
        for name, (inputs, outputs) in zip(self.linear, pairwise(units), strict=True):
            self.add_module(name, nn.Linear(inputs, outputs, bias=bias))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, in_channels, size, size) to logits (B, num_classes)."""
        image_size(x, self.size)
        x = x.flatten(1)
        for name in self.linear[:-1]:
            x = self.dropout(F.relu(self.get_submodule(name)(x)))
        return self.get_submodule(self.linear[-1])(x)
