"""A deep network of linear layers without nonlinearities."""

from torch import nn

from weightfold.nets.checks import at_least
from weightfold.nets.registry import network


@network("deep_linear")
class DeepLinear(nn.Sequential):
    """`depth` linear layers, without nonlinearities between (Santurkar et al. 2018: 25 layers).

    Images float (B, in_channels, size, size), flattened, to logits (B, num_classes). Weights are
    drawn as He's normal by inputs, without the factor for ReLU.

    Args:
        depth: Linear layers.
        width: Units between them.
        batch_norm: A batch norm behind every layer but the last.
        size: Height and width of the images.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: An option outside its range.
    """

    def __init__(
        self,
        *,
        depth: int = 25,
        width: int = 32,
        batch_norm: bool = False,
        size: int = 28,
        num_classes: int = 10,
        in_channels: int = 1,
    ) -> None:
        at_least(1, depth=depth, width=width, size=size)
        sizes = [in_channels * size * size, *[width] * (depth - 1), num_classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for i in range(depth):
            linear = nn.Linear(sizes[i], sizes[i + 1], bias=not batch_norm)
            nn.init.normal_(linear.weight, std=sizes[i] ** -0.5)
            layers.append(linear)
            if batch_norm and i < depth - 1:
                layers.append(nn.BatchNorm1d(sizes[i + 1]))
        super().__init__(*layers)
