"""Subspaces that are trained as one batch are what they are alone."""

import pytest
import torch

import weightfold as wf
from weightfold.probes.intrinsic.trials import nested, plain


def chosen(net) -> torch.Tensor:
    """Columns of P that `nested` trains."""
    return net.charts[0].get_buffer("charts.0.psi_mask")


def projection(net) -> torch.Tensor:
    """P of the subspace below the mask, (D, width), by its columns' effect."""
    inner = net.model
    width = inner.charts[0].projection.dim
    eye = torch.eye(width, dtype=torch.float64)
    return torch.stack([inner.charts[0].projection(column) for column in eye], dim=1)


@pytest.mark.parametrize("kind", ["srht", "dense", "sparse", "fastfood"])
def test_training_nested_is_training_the_chosen_columns(make_net, kind):
    """A dense subspace given those columns takes the same way, step by step."""
    model, x = make_net().double(), torch.randn(20, 6, dtype=torch.float64)
    net = nested(model, 5, 12, kind, seed=3)
    alone = wf.subspace(model, 5, kind="dense", seed=0)
    columns = projection(net)[:, chosen(net)]
    assert columns.shape == (sum(p.numel() for p in model.parameters()), 5)
    alone.charts[0].projection.entries.copy_(columns)
    assert [n for n, _ in net.named_parameters()] == ["charts.0.charts.0.psi"]
    for one in (net, alone):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            one(x).square().mean().backward()
            optimizer.step()
    psi = next(iter(net.parameters()))
    assert not psi[~chosen(net)].any()
    torch.testing.assert_close(psi[chosen(net)], alone.charts[0].psi, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(net(x), alone(x), rtol=1e-10, atol=1e-12)


def test_smaller_dimensions_lie_within_larger_ones(make_net):
    nets = [nested(make_net(), d, 12, "srht", seed=3) for d in (1, 4, 12)]
    one, four, all_of_them = map(chosen, nets)
    assert [int(m.sum()) for m in (one, four, all_of_them)] == [1, 4, 12]
    assert not (one & ~four).any()
    other = chosen(nested(make_net(), 4, 12, "srht", seed=4))
    assert not torch.equal(four, other)


def test_only_the_tensors_chosen_are_trained(make_net):
    net = plain(make_net, "0.*", 0)
    assert [n for n, p in net.named_parameters() if p.requires_grad] == ["0.weight", "0.bias"]
    inside = wf.subspace(net, 4)
    assert [n for n, p in inside.named_parameters() if p.requires_grad] == ["charts.0.psi"]


def test_plain_leaves_the_model_as_it_is(make_net):
    model = make_net()
    net = plain(model, "0.*", 0)
    assert all(p.requires_grad for p in model.parameters())
    assert net is not model
    x = torch.randn(2, 6)
    assert torch.equal(net(x), model(x))
