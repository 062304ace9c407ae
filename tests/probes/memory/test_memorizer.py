from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weightfold.probes.memory.memorizer import Memorizer, memorizer, project

EPS = torch.finfo(torch.float64).eps


def points(n, d, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, (n, d), generator=generator).to(dtype)
    return torch.randn(n, d, generator=generator, dtype=dtype)


def bound(net: Memorizer, x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest rounding error of making and calling the network on its points.

    Each of the n terms weight * (z - knot) has a relative error of a few EPS (of the weight, the
    difference, the product) and is added in at most n steps; the projection is off by at most
    d EPS |direction| |x|, which moves c by at most the steepest slope times that.
    """
    n, d = len(x), x[0].numel()
    x = x.double().reshape(n, -1)
    z = x @ net.direction
    terms = (z[:, None] - net.knots).relu() * net.weight.abs()
    slope = net.weight.cumsum(0).abs().max()
    moved = 2 * d * EPS * net.direction.norm() * x.norm(dim=1).max() * slope
    return (((n + 8) * EPS * terms.sum(dim=1)).max() + moved + EPS * y.abs().max()).item()


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 80),
    d=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.uint8]),
)
def test_any_distinct_points_are_fitted_with_2n_plus_d_weights(n, d, seed, dtype):
    x = points(n, d, seed, dtype).unique(dim=0)
    y = points(len(x), 1, seed + 1)[:, 0] * 100
    net = memorizer(x, y, seed=seed)
    limit = bound(net, x, y)
    assert net.residual == (net(x) - y).abs().max().item() <= limit
    assert sum(p.numel() for p in net.parameters()) == 2 * len(x) + d
    assert net.wrong is None


def test_outgoing_weights_solve_the_triangular_system_of_the_theorem():
    x, y = points(60, 5, 0), points(60, 1, 1)[:, 0]
    net = memorizer(x, y)
    z, order = (x @ net.direction.detach()).sort()
    assert (net.knots < z).all() and (net.knots[1:] >= z[:-1] - 1e-12).all()
    system = (z[:, None] - net.knots.detach()).relu().tril()
    solved = torch.linalg.solve_triangular(system, y[order, None], upper=False)[:, 0]
    # Both have the error of the data's condition: the smallest gap is 1e-3 of the row.
    assert torch.allclose(solved, net.weight.detach(), rtol=1e-9, atol=1e-9 * solved.abs().max())


def test_it_is_a_network_of_two_linear_layers_and_a_relu():
    x, y = points(40, 6, 2), torch.arange(40) % 7
    net = memorizer(x, y)
    plain = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 1, bias=False)).double()
    with torch.no_grad():
        plain[0].weight.copy_(net.direction.expand(40, 6))
        plain[0].bias.copy_(-net.knots)
        plain[2].weight.copy_(net.weight[None])
        elsewhere = points(500, 6, 3)
        limit = 4 * bound(net, torch.cat([x, elsewhere]), y)
        assert torch.allclose(plain(elsewhere)[:, 0], net(elsewhere), rtol=0, atol=limit)
        assert torch.equal(plain(x)[:, 0].round().long(), y)


def test_forward_by_hand_in_pieces_and_with_gradient():
    d = torch.float64
    net = Memorizer(
        torch.tensor([2.0, -1.0], dtype=d),
        torch.tensor([0.0, 1.0], dtype=d),
        torch.tensor([3.0, -5.0], dtype=d),
    )
    # z = 2 a - b; c = 3 max(z, 0) - 5 max(z - 1, 0).
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.25, 0.0]], dtype=d)
    assert net(x).tolist() == [1.0, 0.0, 3.0, 1.5]
    assert net(x[:0]).shape == (0,)
    net(x).sum().backward()
    # d c / d weight_j is the sum of max(z - knot_j, 0).
    assert net.weight.grad.tolist() == [3.5, 1.0]


def test_a_point_is_projected_the_same_alone_and_among_others():
    x, y = points(3000, 20, 4, torch.uint8), torch.arange(3000) % 10
    direction = memorizer(x.view(3000, 1, 4, 5), y).direction.detach()
    together = project(x.view(3000, 1, 4, 5), direction)
    alone = torch.cat([project(x[i : i + 1], direction) for i in range(3000)])
    assert torch.equal(alone, together)


def test_every_random_label_of_fifty_thousand_points():
    x = points(50_000, 48, 5, torch.uint8)
    y = torch.randint(0, 10, (50_000,), generator=torch.Generator().manual_seed(6))
    net = memorizer(x, y)
    assert net.wrong == 0 and net.residual < 1e-3
    assert torch.equal(net.predict(x[:2000]), y[:2000])
    assert sum(p.numel() for p in net.parameters()) == 100_048


def test_seeds_and_copies():
    x, y = points(30, 4, 7), torch.arange(30) % 3
    one, again, other = (memorizer(x, y, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.direction, again.direction)
    assert not torch.equal(one.direction, other.direction)
    copy = deepcopy(one)
    assert copy.residual == one.residual and torch.equal(copy.predict(x), y)


def test_predictions_stay_within_the_classes():
    x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 3, 1])
    net = memorizer(x, y)
    assert net.predict(torch.tensor([[-1e6], [1e6]])).tolist() in ([0, 0], [0, 3], [3, 0])
    with pytest.raises(ValueError, match="real targets"):
        memorizer(x, y.float()).predict(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[1, 2], [3, 4], [5, 6], [3, 4]], dtype=torch.uint8), r"x\[1\] and x\[3\]"),
        (torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, -0.0]]), r"x\[0\] and x\[3\]"),
    ],
)
def test_duplicates_are_refused_by_name(x, message):
    for y in (torch.tensor([0, 1, 0, 1]), torch.zeros(4)):
        with pytest.raises(ValueError, match=f"{message} are the same point"):
            memorizer(x, y)


def test_points_too_near_for_float64_are_named():
    x = torch.tensor([[1e20, 0.0], [3e20, 0.0], [1e20, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"x\[0\] and x\[2\] are different but too near"):
        memorizer(x, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (torch.ones(3, 2).long(), torch.ones(3), TypeError, "x is torch.int64"),
        (torch.ones(3, 2), torch.ones(3).int(), TypeError, "y is torch.int32"),
        (torch.ones(3, 2), torch.ones(2), ValueError, r"\(3, 2\) and y \(2,\)"),
        (torch.ones(0, 2), torch.ones(0), ValueError, "n >= 1"),
        (torch.tensor([[1.0], [torch.nan]]), torch.ones(2), ValueError, "x has values"),
        (torch.tensor([[1.0], [2.0]]), torch.tensor([0, -1]), ValueError, "label -1"),
        (
            torch.tensor([[1e308], [-1e308]], dtype=torch.float64),
            torch.ones(2),
            ValueError,
            "overflows",
        ),
    ],
)
def test_bad_input_is_refused(x, y, error, message):
    with pytest.raises(error, match=message):
        memorizer(x, y)


def test_points_of_another_size_are_refused():
    net = memorizer(points(5, 3, 8), torch.arange(5))
    with pytest.raises(ValueError, match="points of 4 values; give 3"):
        net(points(2, 4, 9))
