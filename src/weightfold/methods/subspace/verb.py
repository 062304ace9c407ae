"""`wf.subspace`."""

from torch import nn

from weightfold.core.arguments import check_memory, checked_seed, unwrapped, whole
from weightfold.core.charted import Charted
from weightfold.core.select import Where, select_tensors
from weightfold.methods.subspace.chart import Subspace
from weightfold.methods.subspace.projections import Kind, projection_numbers


def subspace(
    net: nn.Module, dim: int, *, kind: Kind = "srht", where: Where = None, seed: int = 0
) -> Charted:
    """Train `dim` coordinates of a random subspace of the chosen tensors, jointly.

    theta = theta0 + P psi (Li et al. 2018, Eq. 2), theta0 the present weights, psi = 0 at first.
    P has columns of norm 1 (with "srht" orthogonal ones), so that a learning rate that suits theta
    suits psi.

    >>> import torch, weightfold as wf
    >>> net = wf.subspace(torch.nn.Linear(20, 10), dim=5)
    >>> [tuple(p.shape) for p in net.parameters()]
    [(5,)]
    >>> net.deploy()
    Linear(in_features=20, out_features=10, bias=True)

    Args:
        net: A module or a Charted net, whose psi then is what the subspace is of; left unchanged.
        dim: Number of coordinates.
        kind: "srht", block subsampled randomised Hadamard transform, O(D log d) and a bit a weight
            in memory; "dense", Gaussian, D x d numbers; "sparse", sqrt(D) entries a column;
            "fastfood", one block of full length.
        where: Tensors by name, glob, type of the owning layer or predicate; None: all trainable.
        seed: Seed of the projection; of P nothing else is saved.

    Raises:
        TypeError: `net` is no module, or an argument is of another type.
        MemoryError: The projection takes more memory than there is.
        ValueError: `dim` is below 1 or above the number of weights chosen; `where` matches nothing;
            `kind` is unknown.
    """
    net = unwrapped(net)
    dim, seed = whole(dim, "dim"), checked_seed(seed)
    tensors = select_tensors(net, where)
    numbers = projection_numbers(kind, sum(t.numel() for t in tensors.values()), dim)
    check_memory(f"dim={dim} with kind={kind!r} makes a projection", 8 * numbers)
    return Charted(net, [Subspace(tensors, dim, seed, kind)])
