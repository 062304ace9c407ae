import math

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.probes.landscape.directions import random_direction
from weightfold.probes.landscape.evaluate import evaluate
from weightfold.probes.objective import Objective

from .conftest import norm_net

QUIET = {"progress": False, "device": "cpu"}


def linear_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3))


def losses(net, samples):
    x, y = samples.train.inputs, samples.train.targets
    return nn.functional.cross_entropy(net(x.to(next(net.parameters()))), y).item()


def test_points_are_what_the_network_gives_there(samples):
    net, other = linear_net(), linear_net(1)
    found = wf.landscape(net, samples, along=("to",), to=(other,), points=9, **QUIET)
    at = dict(zip(found.axes[0], found.slices[0].values["loss"], strict=True))
    # float32 sums of a few dozen terms, in another order
    assert math.isclose(at[0.0], losses(net, samples), rel_tol=1e-5)
    assert math.isclose(at[1.0], losses(other, samples), rel_tol=1e-5)


def test_vmapped_points_are_those_one_after_another(samples, monkeypatch):
    objective = Objective(linear_net(), samples)
    points = [objective.flat() + 0.1 * i for i in range(7)]
    together = evaluate(objective, points, 7)
    monkeypatch.setattr("weightfold.probes.landscape.evaluate.POINTS", 1)
    alone = evaluate(objective, points, 7)
    assert together.keys() == alone.keys() == {"loss", "accuracy"}
    torch.testing.assert_close(torch.tensor(together["loss"]), torch.tensor(alone["loss"]))


def test_filters_of_a_direction_are_as_long_as_the_networks(net, samples):
    objective = Objective(net, samples)
    direction = objective.split(random_direction(objective, 0, biases=False))
    for name, tensor in objective.start.items():
        own = direction[name].flatten(1).norm(dim=1) if tensor.dim() > 1 else direction[name]
        wanted = tensor.flatten(1).norm(dim=1) if tensor.dim() > 1 else torch.zeros_like(tensor)
        torch.testing.assert_close(own, wanted)
    moved = objective.split(random_direction(objective, 0, biases=True))
    for name in ("0.bias", "1.weight", "1.bias"):
        torch.testing.assert_close(moved[name].norm(), objective.start[name].norm())


def test_recalibrated_scales_do_not_matter(samples):
    """A filter before a batch norm may be scaled: its own statistics take that back."""
    net = norm_net()
    with torch.no_grad():
        net[1].eps = 1e-12
        other = norm_net()
        other[1].eps = 1e-12
        other[0].weight.mul_(3)
        other[0].bias.mul_(3)
    for bn, same in (("recalibrate", True), ("batch", True), ("keep", False)):
        found = wf.landscape(net, samples, along=("to",), to=(other,), points=7, bn=bn, **QUIET)
        # On the line the filters are those of the network times 1 + 2 a.
        positive = [v for a, v in zip(found.axes[0], found.slices[0].values["loss"], strict=True)
                    if 1 + 2 * a > 0.01]  # fmt: skip
        low, high = min(positive), max(positive)
        assert (high - low < 1e-6 * abs(high)) == same


def test_what_is_not_finite_is_a_gap(samples, tmp_path):
    found = wf.landscape(linear_net(), samples, points=5, span=1e38, **QUIET)
    assert found.gaps > 0 and "not finite" in found.headline
    again = type(found).from_record(found.record())
    assert again.rows() == found.rows()
    found.draw(tmp_path / "plane.png")
    assert (tmp_path / "plane.png").stat().st_size > 1000


def test_an_expanded_network_is_seen_in_both_coordinates(samples):
    net = norm_net().float()
    big = wf.expand(net, conv="ck", linear=None, seed=0)
    sizes = [Objective(big.eval(), samples, coordinates=c).size for c in ("theta", "psi")]
    assert sizes[0] == sum(p.numel() for p in net.parameters()) < sizes[1]
    for coordinates in ("theta", "psi"):
        found = wf.landscape(
            big, samples, along=("random",), points=3, bn="keep", coordinates=coordinates, **QUIET
        )
        assert math.isclose(found.centre("loss")[0], losses(big, samples), rel_tol=1e-4)


def test_bad_input(net, samples):
    for message, options in {
        "bn=None": {},
        "along='up'": {"along": ("up",), "bn": "keep"},
        "along has 3": {"along": ("random",) * 3, "bn": "keep"},
        "to has 0": {"along": ("to",), "bn": "keep"},
        "points=2": {"points": 2, "bn": "keep"},
        "span=0": {"span": 0, "bn": "keep"},
        r"to\[0\] is no checkpoint": {"along": ("to",), "to": (linear_net(),), "bn": "keep"},
        "part='held'": {"part": "held", "bn": "keep"},
    }.items():
        with pytest.raises(ValueError, match=message):
            wf.landscape(net, samples, **options, **QUIET)
