"""wf.align: the neurons of one network in the order of another's."""

import torch
from torch import Tensor, nn

from weightfold.core.arguments import unwrapped
from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.slots import tensor_at
from weightfold.probes.path.permutations import Group, groups

SWEEPS = 100


def align(net: nn.Module, to: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `net` with its neurons permuted so that its weights are nearest to those of `to`.

    >>> import torch, weightfold as wf
    >>> a, b = (torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)) for _ in "ab")
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(wf.align(a, b, x)(x), a(x), atol=1e-6)
    True

    Weight matching (Ainsworth et al. 2023): channel groups in turn get the permutation with the
    largest inner product, by `scipy.optimize.linear_sum_assignment`, until none changes. A group
    is the output channels of a convolution (depthwise ones behind it included) or units of a
    Linear, with batch norms and all layers that read them; layers that meet in a residual sum
    share one. Channels that anything else reads stay. That the permuted network is the same
    function is checked in float64.

    Args:
        net: Left unchanged; a Charted net is deployed.
        to: A network of the same class and sizes.
        example: Inputs that both take, (B, ...).

    Returns:
        A network in the mode of `net`.

    Raises:
        TypeError: One of the two is no module.
        ValueError: torch.fx cannot trace the network, the two differ in a tensor's shape, or the
            permuted network is another function.
        ImportError: scipy is not installed.
    """
    net, to = unwrapped(net), unwrapped(to, "to")
    net, to = (n.deploy() if isinstance(n, Charted) else copied(n) for n in (net, to))
    mode = net.training
    ours, theirs = net.eval().state_dict(), to.state_dict()
    if differing := [k for k in ours if k not in theirs or ours[k].shape != theirs[k].shape]:
        raise ValueError(f"to={type(to).__name__} has no {differing[0]!r} of the shape in net")
    found = groups(net, example[:2])
    with torch.no_grad():
        before = _outputs(net, example)
        for group, order in zip(found, match(found, ours, theirs), strict=True):
            for name, axis, inner in group.tensors:
                tensor = tensor_at(net, name)
                tensor.copy_(permuted(tensor, axis, inner, order))
        check_same(before, _outputs(net, example))
    return net.train(mode)


def check_same(before: Tensor, after: Tensor) -> None:
    """Refuse a permutation that changes the function.

    Args:
        before: Outputs, float64.
        after: Outputs after it.

    Raises:
        ValueError: They differ by more than rounding.
    """
    off = (before - after).abs().max().item()
    if not off <= 1e-9 * max(1.0, before.abs().max().item()):
        raise ValueError(
            f"net: the permutation changes the function (outputs by up to {off:.2g}); some part of "
            "the network reads its channels in a way that its graph does not show"
        )


def permuted(tensor: Tensor, axis: int, inner: int, order: Tensor) -> Tensor:
    """A tensor with the channels along an axis in another order."""
    index = torch.arange(len(order) * inner, device=tensor.device).view(len(order), inner)
    return tensor.index_select(axis, index[order.to(tensor.device)].flatten())


def match(found: list[Group], ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[Tensor]:
    """For each group the order of our channels that is nearest to theirs; int64 (size,)."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("aligning needs scipy: pip install 'weightfold[train]'") from error
    orders = [torch.arange(group.size) for group in found]
    placed: dict[str, list[tuple[int, int, int]]] = {}
    for index, group in enumerate(found):
        for name, axis, inner in group.tensors:
            placed.setdefault(name, []).append((index, axis, inner))
    generator = torch.Generator().manual_seed(0)
    for _ in range(SWEEPS):
        changed = False
        for index in torch.randperm(len(found), generator=generator).tolist():
            gain = torch.zeros(found[index].size, found[index].size, dtype=torch.float64)
            for name, axis, _ in found[index].tensors:
                own = ours[name].double().cpu()
                for other, along, width in placed[name]:
                    if (other, along) != (index, axis):
                        own = permuted(own, along, width, orders[other])
                rows = [
                    t.movedim(axis, 0).reshape(found[index].size, -1)
                    for t in (theirs[name].double().cpu(), own)
                ]
                gain += rows[0] @ rows[1].T
            best = torch.as_tensor(linear_sum_assignment(gain.numpy(), maximize=True)[1])
            current = gain[torch.arange(len(best)), orders[index]].sum()
            if gain[torch.arange(len(best)), best].sum() > current * (1 + 1e-12) + 1e-12:
                orders[index], changed = best, True
        if not changed:
            break
    return orders


def _outputs(net: nn.Module, example: Tensor) -> Tensor:
    from weightfold.tasks.outputs import tensor_of

    exact = copied(net).double()
    return tensor_of(exact(example.double()))
