"""Where psi starts: the folded variance of the plain layer, or the plain layer's very function."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.func import vjp

from weightfold.chains.algebra import fold_weights
from weightfold.chains.chain import Chain, geometry


@torch.no_grad()
def match_variance(chain: Chain, weight: Tensor, bias: Tensor | None) -> None:
    """Scale all factors by one number so that the folded std is that of `weight`.

    Torch's default initialisation shrinks a product's std by (1 / sqrt 3)^(factors - 1). Biases
    (our choice): zero in all factors but the last, which takes the plain layer's.

    Args:
        chain: Changed in place.
        weight: (out, in / groups, *kernel) of the plain layer.
        bias: (out,) or None.
    """
    scale = (weight.std() / chain.fold()[0].std()) ** (1 / len(chain))
    for factor in chain:
        factor.weight.mul_(scale)
        if factor.bias is not None:
            factor.bias.zero_()
    if bias is not None:
        chain[-1].bias.copy_(bias)


@torch.no_grad()
def fit_chain(chain: Chain, weight: Tensor, bias: Tensor | None) -> None:
    """Move one factor, in place, by the least change after which the chain folds to `weight`.

    The folded weight is linear in each factor, so the middle one is corrected by a minimum-norm
    least-squares solution. Factors of kernel 1 are first made semi-orthogonal at their own scale
    (which makes CL and FC exact wherever no inner width is below min(in, out)); with CK the other
    factors follow in turn until the residual stops falling. The last bias absorbs what is left.

    Args:
        chain: Changed in place.
        weight: (out, in / groups, *kernel) to fold to.
        bias: (out,) or None.
    """
    groups = geometry(chain.plain)[2]
    weights = [factor.weight.detach().double() for factor in chain]
    target = weight.detach().double()
    middle = len(weights) // 2
    for index, w in enumerate(weights):
        if index != middle and prod(w.shape[2:]) == 1:
            weights[index] = _semi_orthogonal(w, groups)
    sweep = [middle, *(i for i in range(len(weights)) if i != middle)]
    before = float("inf")
    for _ in range(20):
        for index in sweep:
            rest = list(weights)

            def fold(x: Tensor, at: int = index, rest: list[Tensor] = rest) -> Tensor:
                return fold_weights([*rest[:at], x, *rest[at + 1 :]], groups)

            weights[index] = weights[index] + _least_norm(
                fold, weights[index], target - fold(weights[index])
            )
            residual = float((target - fold_weights(weights, groups)).norm() / target.norm())
            if residual < 1e-13:
                break
        if residual < 1e-13 or residual > 0.99 * before:
            break
        before = residual
    for factor, w in zip(chain, weights, strict=True):
        factor.weight.copy_(w)
    if bias is not None:
        chain[-1].bias.add_(bias - chain.fold()[1])


def _semi_orthogonal(weight: Tensor, groups: int) -> Tensor:
    """The nearest semi-orthogonal matrix of each group, scaled to the weight's own norm."""
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    polar = u @ v
    return (polar * matrices.norm() / polar.norm()).reshape(weight.shape)


def _least_norm(
    fold: Callable[[Tensor], Tensor], like: Tensor, target: Tensor, steps: int = 500
) -> Tensor:
    """Minimum-norm least-squares solution x of fold(x) = target, by CGLS (Hestenes, Stiefel 1952).

    Args:
        fold: A linear map.
        like: A tensor of x's shape.
        target: Of the shape of fold's result.
        steps: At most so many iterations.
    """
    _, adjoint = vjp(fold, like)
    x = torch.zeros_like(like)
    r = target.clone()
    p = s = adjoint(r)[0]
    energy = start = s.square().sum()
    for _ in range(steps):
        if energy <= 1e-30 * start:
            break
        q = fold(p)
        alpha = energy / q.square().sum()
        x, r = x + alpha * p, r - alpha * q
        s = adjoint(r)[0]
        energy, last = s.square().sum(), energy
        p = s + energy / last * p
    return x
