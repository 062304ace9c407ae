"""In a random subspace, with dim=1000, and kind=dense or srht."""

from typing import Any

from torch import Tensor, nn

from weightfold.methods.subspace.verb import subspace
from weightfold.methods.variants import Variant


def of_subspace(
    net: nn.Module, example: Tensor, seed: int, *, dim: int | None = None, **options: Any
) -> nn.Module:
    """A network of which `dim` coordinates of a random subspace are trained.

    Args:
        net: The plain one.
        example: Not needed.
        seed: Of the projection.
        dim: How many.
        **options: kind of `wf.subspace`.

    Raises:
        ValueError: No `dim`, or as `wf.subspace` says.
    """
    if dim is None:
        raise ValueError("dim is not given; say how many coordinates: 'subspace,dim=1000'")
    return subspace(net, dim, seed=seed, **options)


VARIANTS = (Variant("subspace", of_subspace, {"dim": int, "kind": str}, shaping=("dim",)),)
