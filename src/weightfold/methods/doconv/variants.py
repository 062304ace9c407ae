"""The variant "doconv"."""

from torch import Tensor, nn

from weightfold.methods.doconv.verb import doconv
from weightfold.methods.variants import Variant


def of_doconv(net: nn.Module, example: Tensor, seed: int) -> nn.Module:
    """A network under DO-Conv, which draws nothing.

    Args:
        net: The plain one.
        example: Not needed.
        seed: Not needed.
    """
    return doconv(net)


VARIANTS = (Variant("doconv", of_doconv),)
