import json
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import weightfold as wf
from weightfold.data import Dataset, Examples
from weightfold.probes.memory.critical import CriticalSamples, Search, counted, search


def linear(seed=0, features=6, classes=2):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(features, classes)


def samples(count=200, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    if dtype == torch.uint8:
        x = (x * 40 + 128).clamp(0, 255).to(torch.uint8)
    y = torch.arange(count) % 2
    return Dataset("data", Examples(x, y), Examples(x, y), 2, mean=(0.5,) * 6, std=(2.0,) * 6)


def reach(net, data):
    """Radius from which on a point of a linear classifier of two classes is critical, exactly."""
    x = data.normalize(data.test.inputs).double()
    w = (net.weight[0] - net.weight[1]).double().detach()
    b = (net.bias[0] - net.bias[1]).double().detach()
    # A step of radius r in x is one of 0.5 r in the network's input.
    return (x @ w + b).abs() / (0.5 * w.abs().sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.05, 2.0))
def test_what_is_found_is_critical_and_little_is_missed(seed, radius):
    net, data = linear(seed), samples(seed=seed)
    first = search(net, data, data.test.inputs, radius=radius, steps=20, seed=seed)
    needed = reach(net, data)
    # float32 rounding of the logits, of about 1, against a margin of about the same.
    assert (needed[first > 0] <= radius * (1 + 1e-4) + 1e-5).all()
    # In 20 steps most values sit at the box's corner: three quarters of the way is always reached.
    assert (first[needed < 0.6 * radius] > 0).all()


def test_a_point_goes_a_step_at_a_time():
    net, data = linear(3), samples(400)
    needed = reach(net, data)
    # Without noise a step would take 0.83 of the radius; none reaches further than the box.
    radius = float(needed.quantile(0.5))
    first = search(net, data, data.test.inputs, radius=radius, steps=15)
    found = counted(first, 15)
    assert len(found) == 15 and list(found) == sorted(found)
    assert found[-1] == int((first > 0).sum())
    assert 0 < found[0] < found[-1] <= int((needed <= radius).sum())
    again = search(net, data, data.test.inputs, radius=radius, steps=15)
    assert torch.equal(first, again)
    assert not torch.equal(
        first, search(net, data, data.test.inputs, radius=radius, steps=15, seed=1)
    )


def test_noise_leaves_a_place_without_gradient():
    class Step(nn.Module):
        """Class 1 where the mean of the inputs lies above 0.1; gradient zero everywhere else."""

        def forward(self, x):
            mean = x.mean(dim=1, keepdim=True)
            return torch.cat([torch.zeros_like(mean), torch.relu(mean - 0.1)], dim=1)

    x = torch.zeros(50, 6)
    data = Dataset("data", Examples(x, torch.arange(50) % 2), Examples(x, torch.arange(50) % 2), 2)
    # A random walk within the box; a search by the gradient alone would never move.
    assert (search(Step(), data, x, radius=1.0, steps=30) > 0).double().mean() > 0.7
    assert (search(Step(), data, x, radius=0.05, steps=10) == 0).all()


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    net[1].eval()
    before = deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    data = samples()
    found = [wf.critical_sample_ratio(net, data, radius=0.5, progress=False) for _ in range(2)]
    assert found[0].searches == found[1].searches
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_the_finding_tells_ratio_interval_and_record(tmp_path):
    told = []
    found = wf.critical_sample_ratio(
        linear, samples(300, dtype=torch.uint8), seeds=(0, 1, 2), progress=told.append, steps=5
    )
    assert found.radius == 0.3
    assert [s.examples for s in found.searches] == [300] * 3
    assert told[-1].completed == told[-1].total == 900
    assert "At least" in found.headline and "3 seeds" in found.headline
    assert CriticalSamples.from_record(json.loads(json.dumps(found.record()))) == found
    assert len(found.rows()) == 15
    found.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_exact_binomial_interval():
    # Clopper and Pearson's interval of 0 of n: up to 1 - 0.025^(1/n).
    low, high = Search(0, 50, (0, 0)).interval()
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 50), rel=1e-9)
    assert Search(0, 50, (10, 25)).ratio == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "radius=None with torch.float32"),
        ({"radius": 0.0}, "radius=0.0"),
        ({"radius": 1.0, "steps": 0}, "steps=0"),
        ({"radius": 1.0, "part": "validation"}, "part='validation'; the data has train, test"),
        ({"radius": 1.0, "seeds": ()}, r"seeds=\(\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        wf.critical_sample_ratio(linear(), samples(), progress=False, **arguments)
