"""The two-layer network that fits any n distinct points with 2n + d weights."""

from math import prod

import torch
from torch import Tensor, nn

from weightfold.hints import check_type
from weightfold.probes.memory.duplicates import first_equal

DIRECTIONS = 8
"""Random directions drawn; the one that keeps the points furthest apart is taken."""

_ROWS, _UNITS, _VALUES = 512, 1024, 2**22


class Memorizer(nn.Module):
    """c(x) = sum_j weight_j max(<direction, x> - knots_j, 0), in the dtype of its weights.

    Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep learning requires rethinking
    generalization" (2017), Theorem 1: a network of one hidden layer of n ReLU units, whose incoming
    weights are one vector for all units.

    Args:
        direction: float (d,), the incoming weights.
        knots: float (n,), where the units begin.
        weight: float (n,), the outgoing weights.
        num_classes: Classes if it was made for class labels, else None.

    Attributes:
        residual: Largest |c(x) - y| over the points it was made for; NaN if not measured.
        wrong: How many of their class labels `predict` misses; None if they have no classes.
    """

    def __init__(
        self, direction: Tensor, knots: Tensor, weight: Tensor, *, num_classes: int | None = None
    ) -> None:
        super().__init__()
        self.direction = nn.Parameter(direction)
        self.knots, self.weight = nn.Parameter(knots), nn.Parameter(weight)
        self.num_classes = num_classes
        self.residual, self.wrong = float("nan"), None if num_classes is None else 0

    def forward(self, x: Tensor) -> Tensor:
        """Points (B, ...), of d values each, to real numbers (B,).

        Raises:
            ValueError: Points of another number of values.
        """
        if prod(x.shape[1:]) != len(self.direction):
            raise ValueError(
                f"x has points of {prod(x.shape[1:])} values; give {len(self.direction)} a point"
            )
        z = project(x, self.direction)
        # In pieces that a processor's cache holds: units times points can be billions.
        units = list(zip(self.knots.split(_UNITS), self.weight.split(_UNITS), strict=True))
        pieces = [
            torch.stack([(part[:, None] - b).relu_() @ w for b, w in units]).sum(dim=0)
            for part in z.split(_ROWS)
        ]
        return torch.cat(pieces)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The class nearest to c(x), int64 (B,).

        Raises:
            ValueError: It was made for real targets.
        """
        if self.num_classes is None:
            raise ValueError("this memorizer fits real targets and has no classes; call it on x")
        return _nearest(self(x), self.num_classes)


@torch.no_grad()
def memorizer(x: Tensor, y: Tensor, *, seed: int = 0) -> Memorizer:
    """A two-layer ReLU network with 2n + d weights that fits n distinct points.

    The construction of Theorem 1 of Zhang et al. 2017 (see `Memorizer`): along a random direction
    the points lie in a row z_1 < ... < z_n; a knot before each makes the system for the outgoing
    weights triangular. The paper leaves open where between two points a knot lies. Here it is the
    point before, so that c is the piecewise linear curve through the points: the weights are its
    changes of slope, found in O(n) steps, and no slope is larger than the points demand. Takes
    O(n d + n log n), and O(n^2 + n d) to measure `residual`, in float64.

    >>> import torch, weightfold as wf
    >>> x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    >>> y = torch.arange(20) % 4
    >>> torch.equal(wf.memorizer(x, y).predict(x), y)
    True

    Args:
        x: uint8 or floating point (n, ...), of d values each.
        y: int64 (n,), class labels from 0, which `predict` then gives; or floating point (n,), real
            targets.
        seed: Of the directions.

    Returns:
        The network, in float64, with `residual` and `wrong` as measured by calling it. These tell
        how well it fits: rounding errors grow with the steepest slope, that is, with the smallest
        distance along the direction.

    Raises:
        TypeError: `x` or `y` of another dtype.
        ValueError: Shapes that do not fit, values that are not finite, negative labels, two points
            that are the same or too near to one another for float64, or sizes beyond float64.
    """
    labels = _checked(x, y)
    y = y.to(x.device)
    _refuse_duplicates(x)
    direction, z = _spread_out(x, seed)
    z, order = z.sort()
    gaps, targets = z.diff(), y[order].double()
    if (gaps <= 0).any():
        near = int(gaps.argmin())
        i, j = sorted(order[near : near + 2].tolist())
        raise ValueError(
            f"x[{i}] and x[{j}] are different but too near to one another to be told apart in "
            "float64; remove one of them"
        )
    # The curve starts from 0, as far before the first point as the points reach.
    lead = z[-1:] - z[:1] if len(z) > 1 else z.new_ones(1)
    slopes = targets.diff(prepend=targets.new_zeros(1)) / torch.cat([lead, gaps])
    knots = torch.cat([z[:1] - lead, z[:-1]])
    weight = slopes.diff(prepend=slopes.new_zeros(1))
    if not (weight.isfinite().all() and knots.isfinite().all()):
        raise ValueError(
            "x or y has values so large or so near to one another that float64 overflows; scale "
            "them to about 1"
        )
    num_classes = int(y.max()) + 1 if labels else None
    net = Memorizer(direction, knots, weight, num_classes=num_classes)
    fitted = net(x)
    net.residual = (fitted - y).abs().max().item()
    if num_classes is not None:
        net.wrong = int((_nearest(fitted, num_classes) != y).sum())
    return net


def project(x: Tensor, direction: Tensor) -> Tensor:
    """<direction, x> of points (B, ...), in the direction's dtype (B,).

    A point's value does not depend on the points beside it, as it would in a matrix product.
    """
    rows = max(1, _VALUES // len(direction))
    flat = x.reshape(len(x), len(direction))
    parts = [(part.to(direction.dtype) * direction).sum(dim=1) for part in flat.split(rows)]
    return torch.cat(parts)


def _nearest(values: Tensor, num_classes: int) -> Tensor:
    return values.round().clamp(0, num_classes - 1).long()


def _checked(x: Tensor, y: Tensor) -> bool:
    """Whether `y` are class labels."""
    for name, values in (("x", x), ("y", y)):
        check_type(name, values, Tensor)
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}; give uint8 or a floating point dtype")
    if y.dtype != torch.int64 and not y.is_floating_point():
        raise TypeError(f"y is {y.dtype}; give int64 class labels or floating point targets")
    if y.dim() != 1 or len(x) != len(y) or x.numel() == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; give (n, ...) and (n,), n >= 1"
        )
    for name, values in (("x", x), ("y", y)):
        if values.is_floating_point() and not values.isfinite().all():
            raise ValueError(f"{name} has values that are NaN or infinite; remove them")
    if y.dtype == torch.int64 and y.min() < 0:
        raise ValueError(f"y has the label {int(y.min())}; give class labels from 0")
    return y.dtype == torch.int64


def _refuse_duplicates(x: Tensor) -> None:
    first = first_equal(x)
    repeats = (first != torch.arange(len(x))).nonzero()
    if len(repeats):
        i = int(repeats[0])
        raise ValueError(
            f"x[{first[i]}] and x[{i}] are the same point; no function gives one point two "
            "targets, so give distinct points, such as x.unique(dim=0)"
        )


def _spread_out(x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The best of some directions, float64 (d,), and the points along it (n,)."""
    generator = torch.Generator().manual_seed(seed)
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(DIRECTIONS):
        direction = torch.randn(x[0].numel(), generator=generator, dtype=torch.float64)
        direction = (direction / direction.norm()).to(x.device)
        z = project(x, direction)
        row = z.sort().values
        gap = (row.diff().min() / (row[-1] - row[0])).item() if len(row) > 1 else 1.0
        if best is None or gap > best[0]:
            best = gap, direction, z
    assert best is not None
    return best[1:]
