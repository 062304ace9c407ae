"""Verbs for the charts that need no planning: wf.subspace and wf.mask."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weightfold.charts.live import Live
from weightfold.charts.mask import Mask
from weightfold.charts.subspace import Subspace
from weightfold.core.charted import Charted, short_name
from weightfold.core.select import Where, select_tensors
from weightfold.projections import Kind


def subspace(
    net: nn.Module, dim: int, *, kind: Kind = "srht", where: Where = None, seed: int = 0
) -> Charted:
    """Train `dim` coordinates of a random subspace of the chosen tensors, jointly.

    theta = theta0 + P psi (Li et al. 2018, Eq. 2), theta0 the present weights, psi = 0 at first.
    P has columns of norm 1 (with "srht" orthogonal ones), so that a learning rate that suits theta
    suits psi.

    Args:
        net: A module or a Charted net, whose psi then is what the subspace is of; left unchanged.
        dim: Number of coordinates.
        kind: "srht", block subsampled randomised Hadamard transform, O(D log d) and a bit a weight
            in memory; "dense", Gaussian, D x d numbers; "sparse", sqrt(D) entries a column;
            "fastfood", one block of full length.
        where: Tensors by name, glob, type of the owning layer or predicate; None: all trainable.
        seed: Seed of the projection; of P nothing else is saved.

    Raises:
        ValueError: `dim` is below 1 or above the number of weights chosen; `where` matches nothing;
            `kind` is unknown.
    """
    return Charted(net, [Subspace(select_tensors(net, where), dim, seed, kind)])


def mask(net: nn.Module, masks: Mapping[str, Tensor], *, live: bool = False) -> Charted:
    """Multiply tensors by fixed masks: theta = m * psi.

    Args:
        net: A module or a Charted net; left unchanged.
        masks: Tensor name (full, or without the levels of Charted) -> mask of 0 and 1.
        live: Keep the live weights only, as one vector: dead ones then have no optimizer state, no
            decay and no place in a file. Otherwise every tensor keeps a coordinate of its name and
            shape, which charts above can be put on (`wf.expand` of a masked layer).

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
    chart = Live if live else Mask
    return Charted(net, [chart(tensors, {n: m.to(torch.bool) for n, m in given.items()})])
