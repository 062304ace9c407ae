"""The nonlinear twin: real chains with a ReLU after every factor but the last (section 5.3, S2).

A model, not a chart: train it as any module, then load it into the linear net and go on.
"""

import copy

from torch import nn

from weightfold.core.charted import Charted
from weightfold.core.slots import check_state, replace_module
from weightfold.methods.expand.chain import Chain, obstacle
from weightfold.methods.expand.chart import Expansion


def _expansion(net: nn.Module) -> Expansion:
    if not isinstance(net, Charted) or not (
        len(net.charts) == 1 and isinstance(net.charts[0], Expansion)
    ):
        raise TypeError(f"net is a {type(net).__name__}; give what wf.expand returned")
    return net.charts[0]


def nonlinear_twin(net: Charted) -> nn.Module:
    """A plain module in which every expanded layer is a `Chain` with ReLUs between its factors.

    Its weights start as copies of those of `net`.

    >>> import torch, weightfold as wf
    >>> net = wf.expand(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), rate=2, seed=0)
    >>> twin = wf.nonlinear_twin(net)  # train it, then go on with
    >>> linear = wf.linear_from_twin(net, twin)
    >>> type(twin[0]).__name__, type(linear.deploy()[0]).__name__
    ('Chain', 'Conv2d')

    Args:
        net: What `wf.expand` returned for a plain module; left unchanged.

    Raises:
        TypeError: `net` is something else.
        ValueError: A chain cannot stand in place of a layer; the message says why.
    """
    chart = _expansion(net)
    model = net.lower()
    for path in chart.specs:
        if reason := obstacle(model, path, model.get_submodule(path)):
            raise ValueError(f"layer {path!r} has no nonlinear twin: {reason}")
        chain = copy.deepcopy(chart.chain(path))
        replace_module(model, path, Chain(list(chain), chain.plain, nonlinear=True))
    return model


def linear_from_twin(net: Charted, twin: nn.Module) -> Charted:
    """A copy of `net` with all weights and buffers of its (trained) nonlinear twin.

    >>> import torch, weightfold as wf
    >>> net = wf.expand(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), rate=2, seed=0)
    >>> twin = wf.nonlinear_twin(net)
    >>> torch.equal(wf.linear_from_twin(net, twin).deploy()[0].weight, net.deploy()[0].weight)
    True

    Args:
        net: The net the twin was made from, or one of the same expansion.
        twin: What `nonlinear_twin` returned.

    Raises:
        TypeError: `net` is not what `wf.expand` returned.
        KeyError: The twin belongs to another expansion; the message lists the keys.
    """
    linear = copy.deepcopy(net)
    chart = _expansion(linear)
    given = twin.state_dict()
    psi = chart.state_dict()
    check_state(linear.model.state_dict() | psi, given)
    chart.load_state_dict({n: given[n] for n in psi})
    linear.model.load_state_dict(given, strict=False)
    return linear
