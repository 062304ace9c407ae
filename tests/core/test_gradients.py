"""Modules that hold their original: what no gradient reaches is named."""

import functools
import warnings

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.train import Recipe, Run, fit_together

X, Y = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
DATA = ((X, Y), (X, Y))
RECIPE = Recipe(epochs=1, batch_size=4, crop_padding=0, flip=False)


class Net(nn.Module):
    def __init__(self, keep):
        super().__init__()
        self.conv, self.head, self.keep = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), nn.Identity()
        keep(self)

    def run(self, x):
        return self.conv(x)

    def forward(self, x):
        return self.head(self.run(x).relu().mean((2, 3)))


def a_lambda(net):
    net.run = lambda x: net.conv(x)


def a_default(net):
    net.run = lambda x, conv=net.conv: conv(x)


def a_hook(net):
    conv = net.conv
    net.keep.register_forward_hook(lambda module, args, out: conv(out))
    net.__dict__["run"] = net.keep


def a_bound_method(net):
    net.run = net.conv.forward


def a_partial(net):
    net.run = functools.partial(Net.run, net)


def a_list_of_layers(net):
    net.layers, net.run = [net.conv], functools.partial(lambda self, x: self.layers[0](x), net)


VERBS = {
    "expand": lambda net: wf.expand(net, rate=2, seed=0),
    "subspace": lambda net: wf.subspace(net, 4, where="conv.*"),
    "mask": lambda net: wf.mask(net, {"conv.weight": torch.ones(4, 3, 3, 3)}),
    "two levels": lambda net: wf.subspace(wf.expand(net, rate=2, seed=0), 4, where="conv.*"),
}


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("keep", [a_lambda, a_default, a_hook])
def test_what_runs_the_original_is_named(keep, verb, together):
    nets = [VERBS[verb](Net(keep)) for _ in range(together)]
    runs = {str(index): Run(net, DATA, 0) for index, net in enumerate(nets)}
    with pytest.warns(UserWarning, match=r"charts\.0\.\S+.* no gradient"):
        fit_together(runs, RECIPE, together=together)


@pytest.mark.parametrize("verb", VERBS)
def test_the_check_by_hand(verb):
    net = VERBS[verb](Net(a_lambda))
    net(X).sum().backward()
    psi = [n for n, _ in net.named_parameters() if n.startswith("charts.")]
    assert net.unreached() == psi
    net = VERBS[verb](Net(a_bound_method))
    net(X).sum().backward()
    assert net.unreached() == []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("keep", [a_bound_method, a_partial, a_list_of_layers])
def test_what_follows_a_copy_trains(keep, verb):
    net = VERBS[verb](Net(keep))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_together({"a": Run(net, DATA, 0)}, RECIPE)
    assert net.unreached() == []


@pytest.mark.parametrize(
    "keep", [lambda w: [w], lambda w: {"a": (w,)}], ids=["list", "nested dict"]
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_weight_that_is_kept_in_a_list_is_refused(keep, verb):
    net = Net(lambda net: setattr(net, "kept", keep(net.conv.weight)))
    with pytest.raises(ValueError, match=r"\(Net\).*'conv\.weight'.*'kept'"):
        VERBS[verb](net)
