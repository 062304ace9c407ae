"""With depthwise over-parameterized convolutions."""

from torch import Tensor, nn

from weightfold.methods.doconv.verb import doconv
from weightfold.methods.variants import Variant, layers_named


def of_doconv(net: nn.Module, example: Tensor, seed: int, *, where: str | None = None) -> nn.Module:
    """A network whose convolutions have a depthwise factor, which begins as the identity."""
    return doconv(net, where=layers_named(where))


VARIANTS = (Variant("doconv", of_doconv, {"where": str}, shaping=("where",)),)
