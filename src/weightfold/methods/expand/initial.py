"""Where psi starts: the folded variance of the plain layer, or the plain layer's very function."""

from math import prod

import torch
from torch import Tensor

from weightfold.methods.expand.algebra import fold_weights
from weightfold.methods.expand.chain import Chain, geometry


@torch.no_grad()
def match_variance(chain: Chain, weight: Tensor, bias: Tensor | None) -> None:
    """Scale all factors by one number so that the folded std is that of `weight`.

    Torch's default initialisation shrinks a product's std by (1 / sqrt 3)^(factors - 1). Biases
    (our choice): zero in all factors but the last, which takes the plain layer's.

    Args:
        chain: Changed in place.
        weight: (out, in / groups, *kernel) of the plain layer.
        bias: (out,) or None.

    Raises:
        ValueError: The plain layer's weights do not vary, so that there is no std to match.
    """
    _check_not_meta(weight)
    scale = (weight.std(correction=0) / chain.fold()[0].std(correction=0)) ** (1 / len(chain))
    if not (scale.isfinite() and scale > 0):
        raise ValueError('init="variance" needs weights with a spread; use "paper" for this layer')
    for factor in chain.factors:
        factor.weight.mul_(scale)
        if factor.bias is not None:
            factor.bias.zero_()
    if bias is not None:
        chain.factors[-1].bias.copy_(bias)


def fit_chain(chain: Chain, weight: Tensor, bias: Tensor | None) -> None:
    """Move psi, in place, so that the chain folds to `weight`, in float64 throughout.

    With at most one kernel larger than 1 (CL, FC): the other factors become semi-orthogonal at
    their own scale, and the remaining one takes the minimum-norm correction, exact wherever no
    inner width is below min(in, out). Where that is not exact, and with several kernels (CK):
    least squares over all factors by L-BFGS, which takes seconds to a minute for large layers. The
    last bias takes what the other biases give.

    Args:
        chain: Changed in place.
        weight: (out, in / groups, *kernel) to fold to.
        bias: (out,) or None.

    Raises:
        ValueError: `weight` or `bias` is not finite, or on the meta device.
    """
    _check_not_meta(weight)
    if not all(t.isfinite().all() for t in (weight, bias) if t is not None):
        raise ValueError("its weight or bias is not finite, which no chain folds to")
    groups = geometry(chain.plain)[2]
    weights = [factor.weight.detach().double() for factor in chain.factors]
    target = weight.detach().double()
    product, ratio = fold_weights(weights, groups).norm(), 1.0
    if target.any() and not 1e-3 < target.norm() / product < 1e3:
        # What is far smaller or larger than the factors is fitted at their scale, then scaled.
        ratio = (target.norm() / product).item()
        target = target / ratio
    scale = torch.maximum(target.norm(), product)
    if not target.any():
        weights[-1] = torch.zeros_like(weights[-1])
    elif sum(prod(w.shape[2:]) > 1 for w in weights) < 2:
        weights = _solve(weights, target, groups)
    if (fold_weights(weights, groups) - target).norm() > 1e-10 * scale:
        weights = _descend(weights, target, groups)
    with torch.no_grad():
        for factor, w in zip(chain.factors, weights, strict=True):
            factor.weight.copy_(w * ratio ** (1 / len(weights)))
            if ratio != 1 and factor.bias is not None:  # else it would drown in what they add up to
                factor.bias.zero_()
        folded = chain.fold()[1]
        if bias is not None and folded is not None:
            chain.factors[-1].bias.add_(bias - folded)


def _check_not_meta(weight: Tensor) -> None:
    if weight.is_meta:
        raise ValueError('its weight is on the meta device, without values; use init="paper"')


def _solve(weights: list[Tensor], target: Tensor, groups: int, middle: int = 1) -> list[Tensor]:
    """Correct one factor by pinv(above) (target - product) pinv(below), tap by tap.

    The second factor is the one from r m to r n channels, whatever the length of the chain.
    """
    weights = [w if i == middle else _semi_orthogonal(w, groups) for i, w in enumerate(weights)]
    above, below = weights[middle + 1 :], weights[:middle]
    residual = (target - fold_weights(weights, groups)).unflatten(0, (groups, -1))
    if above:
        left = torch.linalg.pinv(_matrices(fold_weights(above, groups), groups))
        residual = torch.einsum("gqn,gnm...->gqm...", left, residual)
    if below:
        right = torch.linalg.pinv(_matrices(fold_weights(below, groups), groups))
        residual = torch.einsum("gqm...,gmp->gqp...", residual, right)
    weights[middle] = weights[middle] + residual.flatten(0, 1)
    return weights


def _descend(weights: list[Tensor], target: Tensor, groups: int, steps: int = 100) -> list[Tensor]:
    """Least squares over all factors by L-BFGS."""
    weights = [w.clone().requires_grad_() for w in weights]
    optimizer = torch.optim.LBFGS(
        weights,
        max_iter=steps,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-14,
        tolerance_change=1e-20,
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (fold_weights(weights, groups) - target).square().sum() / target.square().sum()
        torch.autograd.backward(value)
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
    return [w.detach() for w in weights]


def _matrices(weight: Tensor, groups: int) -> Tensor:
    """(groups, out / groups, in / groups) of a factor of kernel 1."""
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1])


def _semi_orthogonal(weight: Tensor, groups: int) -> Tensor:
    """The nearest semi-orthogonal matrix of each group, scaled to the weight's own norm."""
    matrices = _matrices(weight, groups)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    polar = u @ v
    return (polar * matrices.norm() / polar.norm()).reshape(weight.shape)
