"""`wf.subspace`."""

from torch import nn

from weightfold.core.charted import Charted
from weightfold.core.select import Where, select_tensors
from weightfold.methods.subspace.chart import Subspace
from weightfold.methods.subspace.projections import Kind


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
