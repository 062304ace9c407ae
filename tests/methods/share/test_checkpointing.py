"""Activation checkpointing: inside a shared network refused by name, around it right."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import weightfold as wf

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Checkpointed(nn.Module):
    def __init__(self, inside, reentrant=False):
        torch.manual_seed(0)
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
        self.head = nn.Linear(6, 3)
        self.inside, self.reentrant = inside, reentrant

    def forward(self, x):
        run = (
            partial(checkpoint, use_reentrant=self.reentrant) if self.inside else nn.Module.__call__
        )
        return self.head(run(self.body, x).relu().mean((2, 3)))


def share(model):
    plan = wf.plan_sharing(model, "bottom", 0.5, example_input=X)
    return wf.share(model, {"a": 3, "b": 2}, plan)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # while planning
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("where", ["a", ["a", "b"] * 3, ["a"] * 5 + ["b"]])
def test_inside_it_is_refused_by_the_layers_class_and_with_the_cure(reentrant, where):
    net = share(Checkpointed(inside=True, reentrant=reentrant))
    x = X.clone().requires_grad_()
    loss = net(x, domain=where).clamp_min(-100).sum()  # absent classes are -inf
    with pytest.raises(RuntimeError, match=r"Conv2d.*[cC]heckpoint.*the net as a whole"):
        loss.backward()


@pytest.mark.parametrize("where", ["a", ["a", "b"] * 3])
def test_around_the_net_it_is_right(where):
    gradients = []
    for around in (False, True):
        net = share(Checkpointed(inside=False)).eval()
        if around:
            found = checkpoint(net, X, domain=where, use_reentrant=False)
        else:
            found = net(X, domain=where)
        found.clamp_min(-100).square().sum().backward()
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    assert gradients[0]
    assert all(map(torch.equal, *gradients))
