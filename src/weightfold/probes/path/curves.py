"""Curves between two points of the space of weights; those that are found by descent."""

from collections.abc import Callable

import torch
from torch import Tensor

from weightfold.probes.objective import Batch, Objective, grads

Curve = Callable[[float], Tensor]
"""t in [0, 1] to a vector (size,)."""


def linear(a: Tensor, b: Tensor) -> Curve:
    """The straight line."""
    return lambda t: (1 - t) * a + t * b


def norm_preserving(objective: Objective, a: Tensor, b: Tensor) -> Curve:
    """The straight line, each tensor scaled to the interpolated norm of the ends' own."""
    ends = objective.split(a), objective.split(b)

    def at(t: float) -> Tensor:
        found = {}
        for name in ends[0]:
            one, other = ends[0][name], ends[1][name]
            between = (1 - t) * one + t * other
            norm = (1 - t) * one.norm() + t * other.norm()
            found[name] = between * norm / between.norm().clamp_min(torch.finfo(a.dtype).tiny)
        return objective.flat(found)

    return at


def bezier(
    objective: Objective, a: Tensor, b: Tensor, *, steps: int, lr: float, seed: int
) -> Curve:
    """A quadratic Bezier curve whose control point makes the mean loss along it small.

    Garipov et al. 2018: stochastic gradient descent with momentum 0.9, t drawn for each batch.
    """
    control, momentum = 0.5 * (a + b), torch.zeros_like(a)
    generator = torch.Generator().manual_seed(seed)

    def through(c: Tensor, t: float) -> Tensor:
        return (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b

    for step in range(steps):
        t = torch.rand((), generator=generator).item()
        slope = gradient_at(objective, through(control, t), _batch(objective, step))
        momentum = 0.9 * momentum + 2 * t * (1 - t) * slope
        control = control - _rate(lr, step, steps) * momentum
    return lambda t: through(control, t)


def string(
    objective: Objective, a: Tensor, b: Tensor, *, steps: int, lr: float, pivots: int
) -> Curve:
    """Points that go down the loss, kept at equal distances along the line through them.

    The simplified string method (E, Ren and Vanden-Eijnden 2007), on batches.
    """
    places = torch.linspace(0, 1, pivots + 2, dtype=a.dtype, device=a.device)
    points = torch.stack([(1 - t) * a + t * b for t in places])
    for step in range(steps):
        batch = _batch(objective, step)
        for i in range(1, pivots + 1):
            slope = gradient_at(objective, points[i], batch)
            points[i] -= _rate(lr, step, steps) * slope
        points = _even(points)
    return lambda t: _along(points, t * (pivots + 1))


def gradient_at(objective: Objective, point: Tensor, batch: Batch) -> Tensor:
    """The gradient of a batch's mean loss, (size,)."""
    leaves = {n: t.detach().clone().requires_grad_() for n, t in objective.split(point).items()}
    loss = objective.terms(leaves, batch.inputs, batch.targets).losses.mean()
    return grads(loss, list(leaves.values()))


def _batch(objective: Objective, step: int) -> Batch:
    return next(objective.batches(step % objective.count))


def _rate(lr: float, step: int, steps: int) -> float:
    """Linear down to a tenth."""
    return lr * (1 - 0.9 * step / max(1, steps - 1))


def _along(points: Tensor, place: float) -> Tensor:
    first = min(int(place), len(points) - 2)
    return points[first] + (place - first) * (points[first + 1] - points[first])


def _even(points: Tensor) -> Tensor:
    """As many points at equal distances along the line through them."""
    lengths = (points[1:] - points[:-1]).norm(dim=1).double()
    total = torch.cat(
        [torch.zeros(1, dtype=torch.float64, device=points.device), lengths.cumsum(0)]
    )
    wanted = torch.linspace(0, total[-1].item(), len(points), dtype=torch.float64)
    found = [points[0]]
    for at in wanted[1:-1].tolist():
        first = min(int((total <= at).sum()) - 1, len(lengths) - 1)
        share = (at - total[first].item()) / max(lengths[first].item(), 1e-30)
        found.append(points[first] + share * (points[first + 1] - points[first]))
    return torch.stack([*found, points[-1]])
