"""With depthwise over-parameterized convolutions."""

from torch import Tensor, nn

from weightfold.methods.doconv.verb import doconv
from weightfold.methods.variants import Variant


def of_doconv(net: nn.Module, example: Tensor, seed: int) -> nn.Module:
    """A network whose convolutions have a depthwise factor, which begins as the identity."""
    return doconv(net)


VARIANTS = (Variant("doconv", of_doconv),)
