"""The nonlinear twin: a model of its own, whose weights load into the linear net."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import weightfold as wf


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 5, padding="same"),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.Linear(5, 2),
    ).double()


def images(n=3):
    return torch.randn(n, 2, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_forward_has_a_relu_after_every_factor_but_the_last(model, execution):
    net = wf.expand(model, 2, "ck", linear="fc", execution=execution, seed=0).eval()
    twin = wf.nonlinear_twin(net)
    w = twin.state_dict()
    x = images()
    y = F.relu(F.conv2d(x, w["0.0.weight"], w["0.0.bias"], padding=1, groups=2))
    y = F.relu(F.conv2d(y, w["0.1.weight"], w["0.1.bias"], stride=2, groups=2))
    y = F.conv2d(y, w["0.2.weight"], w["0.2.bias"], groups=2)
    y = F.relu(model[1].eval()(y))
    y = F.relu(F.conv2d(F.pad(y, (2, 2, 2, 2)), w["3.0.weight"], w["3.0.bias"]))
    y = F.conv2d(y, w["3.1.weight"], w["3.1.bias"]).flatten(1)
    y = F.relu(F.linear(y, w["5.0.weight"], w["5.0.bias"]))
    y = F.relu(F.linear(y, w["5.1.weight"], w["5.1.bias"]))
    y = F.linear(F.linear(y, w["5.2.weight"], w["5.2.bias"]), w["6.weight"], w["6.bias"])
    torch.testing.assert_close(twin(x), y, rtol=1e-12, atol=1e-13)
    assert (net(x) - y).abs().max() > 1e-3


def test_the_twin_starts_as_a_copy_and_shares_nothing(model):
    net = wf.expand(model, 2, linear="fc", seed=0)
    twin = wf.nonlinear_twin(net)
    assert type(twin) is nn.Sequential
    assert sum(p.numel() for p in twin.parameters()) == sum(p.numel() for p in net.parameters())
    psi = net.charts[0].state_dict()
    given = twin.state_dict()
    assert all(torch.equal(given[n], t) for n, t in psi.items())
    before = copy.deepcopy(net.state_dict())
    for p in twin.parameters():
        p.data.add_(1)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    assert all(p.requires_grad for p in twin.parameters())


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_trained_weights_and_statistics_load_into_the_linear_net(model, execution):
    net = wf.expand(model, 2, "ck", linear="fc", execution=execution, seed=0)
    twin = wf.nonlinear_twin(net)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        twin(images(8)).square().mean().backward()
        optimizer.step()
    before = copy.deepcopy(net.state_dict())
    linear = wf.linear_from_twin(net, twin)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    trained = twin.state_dict()
    assert not torch.equal(trained["1.running_mean"], before["model.1.running_mean"])
    loaded = {
        n.removeprefix("model.").removeprefix("charts.0."): t
        for n, t in linear.state_dict().items()
    }
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(loaded[n], t) for n, t in trained.items())
    for chain in twin.modules():
        if isinstance(chain, wf.Chain):
            chain.nonlinear = False
    x = images()
    torch.testing.assert_close(linear.eval()(x), twin.eval()(x), rtol=1e-12, atol=1e-13)


def test_another_architecture_is_refused_with_the_keys(model):
    net = wf.expand(model, 2, seed=0)
    twin = wf.nonlinear_twin(net)
    with pytest.raises(KeyError, match=r"other shape: .*0\.0\.weight \(4, 1, 1, 1\) instead of"):
        wf.linear_from_twin(wf.expand(model, 4, seed=0), twin)
    with pytest.raises(KeyError, match=r"unexpected: .*0\.2\.weight"):
        wf.linear_from_twin(wf.expand(model, 2, where="3", seed=0), twin)
    with pytest.raises(KeyError, match=r"missing: .*5\.0\.weight"):
        wf.linear_from_twin(wf.expand(model, 2, linear="fc", seed=0), twin)


def test_only_what_expand_returns_has_a_twin(model):
    for other in (model, wf.subspace(model, dim=3), wf.subspace(wf.expand(model), dim=3)):
        with pytest.raises(TypeError, match=r"wf\.expand"):
            wf.nonlinear_twin(other)
        with pytest.raises(TypeError, match=r"wf\.expand"):
            wf.linear_from_twin(other, model)


class Own(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_tied_own_and_hooked_layers_have_no_twin():
    """A chain with ReLUs in place of such a layer would be another model."""
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    tied[1].weight = tied[0].weight
    hooked = nn.Sequential(nn.Conv2d(3, 3, 3))
    hooked[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    own = nn.Sequential(Own(3, 3, 3))
    for model, reason in ((tied, "tied"), (hooked, "hooks"), (own, "Own may do more")):
        with pytest.raises(ValueError, match=f"layer '0' has no nonlinear twin: .*{reason}"):
            wf.nonlinear_twin(wf.expand(model))
