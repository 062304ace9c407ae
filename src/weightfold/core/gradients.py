"""Coordinates that a backward pass did not reach."""

import warnings
from collections.abc import Mapping

from torch import Tensor, nn

from weightfold.core.chart import Chart
from weightfold.core.mixins import CallContext


def coordinates(net: nn.Module) -> list[str]:
    """Names of the trainable coordinates of charts in `net`, but for those of single domains."""
    found = []
    for path, module in net.named_modules():
        if isinstance(module, Chart) and not isinstance(module, CallContext):
            psi = module.named_parameters(prefix=path)
            found += [name for name, p in psi if p.requires_grad]
    return found


def unreached(names: list[str], tensors: Mapping[str, Tensor]) -> list[str]:
    """Those of `names` whose tensors have no gradient."""
    return [name for name in names if name in tensors and tensors[name].grad is None]


def warn_unreached(names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Warn of coordinates that the first backward gave no gradient."""
    if found := unreached(names, tensors):
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        warnings.warn(
            f"the first backward gave {', '.join(found[:5])}{more} no gradient: forward does not "
            "use their weights, or uses those of the module that was charted, which a lambda, a "
            "closure or a hook still holds; call layers through self in forward",
            stacklevel=3,
        )
