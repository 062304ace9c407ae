"""Networks in which hooks or parametrizations compute weights; torch itself copies none of them."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

import weightfold as wf
from weightfold import Charted
from weightfold.core.copying import copied
from weightfold.folding import fold_batch_norm
from weightfold.trace import trace

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer)


class Scaled:
    """A hook of the kind that GAN code has (equalised learning rates)."""

    name = "weight"

    def __init__(self, layer):
        weight = layer.weight
        del layer._parameters["weight"]
        layer.register_parameter("weight_orig", nn.Parameter(weight.detach().clone()))
        layer.register_forward_pre_hook(self)
        self(layer, ())

    def __call__(self, layer, inputs):
        layer.weight = layer.weight_orig * 2


def scaled(layer):
    Scaled(layer)
    return layer


COMPUTED = {
    "weight_norm": old_weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "prune": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "pruned twice": lambda layer: prune.random_structured(
        prune.random_unstructured(layer, "weight", 0.3), "weight", 0.5, dim=0
    ),
    "scaled": scaled,
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


def model(kind):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        COMPUTED[kind](nn.Conv2d(6, 4, 3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    net(X).sum().backward()  # what the hook left behind has a history now
    net.zero_grad()
    return net


VERBS = {
    "expand": lambda net: wf.expand(net, where="0", rate=2, seed=0, init="preserve"),
    "subspace": lambda net: wf.subspace(net, 5),
    "subspace of another layer": lambda net: wf.subspace(net, 5, where="0.*"),
    "mask": lambda net: wf.mask(net, {"0.weight": torch.ones(6, 3, 3, 3)}),
    "live": lambda net: wf.mask(net, {"6.weight": torch.ones(3, 4)}, live=True),
    "two levels": lambda net: wf.subspace(wf.expand(net, where="0", rate=2, seed=0), 5),
}


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("verb", VERBS)
def test_charted_trained_deployed_copied_and_saved(kind, verb, tmp_path):
    net = VERBS[verb](model(kind))
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(X).square().mean().backward()
        optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    net.eval()
    out, deployed = net(X), net.deploy()
    torch.testing.assert_close(deployed(X), out)
    torch.testing.assert_close(net.deploy()[3].weight, deployed[3].weight)
    for clone in (copy.deepcopy(net), AveragedModel(net).module, copy.deepcopy(net.deploy())):
        torch.testing.assert_close(clone.eval()(X), out)
    assert net.verify(X).worst < 1e-9
    wf.save(net, tmp_path / "net")
    torch.testing.assert_close(wf.load(tmp_path / "net", model(kind)).eval()(X), out)


@pytest.mark.parametrize("kind", COMPUTED)
def test_what_runs_a_copy_of_a_plain_network(kind):
    net = model(kind).eval()
    expected = net(X)
    torch.testing.assert_close(wf.shrink(net, X)(X), expected)
    torch.testing.assert_close(fold_batch_norm(net)(X), expected, rtol=1e-4, atol=1e-5)
    assert trace(net, X).output == (2, 3)
    torch.testing.assert_close(copied(net)(X), expected)


def test_the_layer_itself_is_refused_by_name():
    for kind in COMPUTED:
        with pytest.raises(ValueError, match="'3'"):
            wf.expand(model(kind), where="3", seed=0)


class Keeps(nn.Module):
    def __init__(self, keep):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.kept = keep(self.conv.weight)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    "keep",
    [lambda w: w * 2, lambda w: [w * 2], lambda w: {"a": (w * 2,)}],
    ids=["alone", "in a list", "in a dict"],
)
def test_another_tensor_with_a_history_is_refused(keep):
    net = nn.Sequential(Keeps(keep), nn.Linear(6, 2), *[nn.Identity()] * 4, nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"module '0' \(Keeps\).*'kept'"):
        wf.expand(net, seed=0)
    with pytest.raises(ValueError, match=r"module '0' \(Keeps\).*'kept'"):
        wf.subspace(net, 3)


def test_what_a_forward_keeps_does_not_stop_deploy():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.seen = nn.Conv2d(3, 4, 3), []

        def forward(self, x):
            self.seen = [self.conv(x)]
            self.last = self.seen[0]
            return self.last

    net = wf.expand(Remembers(), rate=2, seed=0)
    out = net(X)
    assert isinstance(copy.deepcopy(net), Charted)
    torch.testing.assert_close(net.deploy()(X), out)
    assert net.verify(X).worst < 1e-9
