"""Verbs for the charts that need no planning: wf.subspace and wf.mask."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weightfold.charts.mask import Mask
from weightfold.charts.subspace import Subspace
from weightfold.core.charted import Charted, short_name
from weightfold.core.select import Where, select_tensors


def subspace(net: nn.Module, dim: int, *, where: Where = None, seed: int = 0) -> Charted:
    """Train `dim` coordinates of a random subspace of the chosen tensors, jointly.

    theta = theta0 + P psi (Li et al. 2018, Eq. 2), theta0 the present weights, psi = 0 at first.

    Args:
        net: A module or a Charted net, whose psi then is what the subspace is of; left unchanged.
        dim: Number of coordinates.
        where: Tensors by name, glob, type of the owning layer or predicate; None: all trainable.
        seed: Seed of the projection.

    Raises:
        ValueError: `dim` is below 1 or above the number of weights chosen; `where` matches nothing.
    """
    return Charted(net, [Subspace(select_tensors(net, where), dim, seed)])


def mask(net: nn.Module, masks: Mapping[str, Tensor]) -> Charted:
    """Multiply tensors by fixed masks: theta = m * psi.

    Args:
        net: A module or a Charted net; left unchanged.
        masks: Tensor name (full, or without the levels of Charted) -> mask of 0 and 1.

    Raises:
        ValueError: A name is no trainable tensor, or a mask has another shape or other values.
    """
    tensors = select_tensors(net, list(masks))
    given = {n: masks[n] if n in masks else masks[short_name(net, n)] for n in tensors}
    for name, m in given.items():
        if m.shape != tensors[name].shape:
            raise ValueError(
                f"masks[{name!r}] has shape {tuple(m.shape)}, "
                f"the tensor has {tuple(tensors[name].shape)}"
            )
        if not ((m == 0) | (m == 1)).all():
            raise ValueError(f"masks[{name!r}] has values other than 0 and 1")
    return Charted(net, [Mask(tensors, {n: m.to(torch.bool) for n, m in given.items()})])
