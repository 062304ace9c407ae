"""Arguments of another type or size are refused by name, before anything is allocated."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import weightfold as wf

X = torch.zeros(1, 2, 6, 6)


def model():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))


def plan():
    return wf.plan_sharing(model(), "bottom", 0.5, example_input=X)


VERBS = {
    "expand": lambda net=None, **how: wf.expand(net or model(), **how),
    "subspace": lambda net=None, **how: wf.subspace(net or model(), **{"dim": 3, **how}),
    "mask": lambda net=None, **how: wf.mask(net or model(), **{"masks": {}, **how}),
    "share": lambda net=None, **how: wf.share(
        net or model(), **{"domains": {"a": 2}, "plan": plan(), **how}
    ),
    "plan_sharing": lambda net=None, **how: wf.plan_sharing(
        net or model(), **{"fraction": 0.5, "example_input": X, **how}
    ),
    "save": lambda net=None: wf.save(net, "never-written"),
    "load": lambda net=None: wf.load("never-read", net),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("net", [nn.Linear, "resnet18", 3])
def test_a_net_that_is_none(verb, net):
    name = net.__name__ if isinstance(net, type) else type(net).__name__
    with pytest.raises(TypeError, match=rf"net is .*{name}"):
        VERBS[verb](net)


@pytest.mark.parametrize(
    ("verb", "argument", "value", "error"),
    [
        ("expand", "rate", "4", TypeError),
        ("expand", "rate", True, TypeError),
        ("expand", "rate", 0, ValueError),
        ("expand", "rate", float("nan"), ValueError),
        ("expand", "rate", 1_000_000, MemoryError),
        ("expand", "rate", 1e300, MemoryError),
        ("expand", "linear_depth", 10**6, ValueError),
        ("expand", "where", b"0", TypeError),
        ("expand", "where", 3, TypeError),
        ("expand", "conv", "fc", ValueError),
        ("expand", "conv", 1, ValueError),
        ("expand", "seed", -1, ValueError),
        ("expand", "seed", 2**70, ValueError),
        ("expand", "seed", "0", TypeError),
        ("expand", "options", {"first": "m"}, TypeError),
        ("subspace", "dim", 10.5, TypeError),
        ("subspace", "dim", "10", TypeError),
        ("subspace", "dim", 0, ValueError),
        ("subspace", "dim", 2**70, ValueError),
        ("subspace", "kind", "gaussian", ValueError),
        ("subspace", "seed", -1, ValueError),
        ("subspace", "seed", 2**70, ValueError),
        ("subspace", "seed", 1.0, TypeError),
        ("subspace", "where", 3, TypeError),
        ("subspace", "kind", ["srht"], ValueError),
        ("mask", "masks", [1, 0], TypeError),
        ("mask", "masks", {}, TypeError),
        ("mask", "masks", {"0.weight": torch.ones(4, 2, 3, 3, device="meta")}, TypeError),
        ("mask", "masks", {"0.w*": torch.ones(4, 2, 3, 3)}, ValueError),
        ("mask", "masks", {3: torch.ones(4, 2, 3, 3)}, ValueError),
        ("mask", "masks", {"0.weight": [1, 0]}, TypeError),
        ("share", "domains", ["a"], TypeError),
        ("share", "plan", "bottom", TypeError),
        ("share", "seed", -1, ValueError),
        ("share", "seed", 2**70, ValueError),
        ("plan_sharing", "strategy", "middle", ValueError),
        ("plan_sharing", "strategy", 1, ValueError),
        ("plan_sharing", "fraction", "0.2", TypeError),
        ("plan_sharing", "fraction", 1.5, ValueError),
        ("plan_sharing", "budget", 3, ValueError),
        ("plan_sharing", "seed", 2**70, ValueError),
        ("plan_sharing", "example_input", [1], TypeError),
        ("plan_sharing", "options", "shared", TypeError),
    ],
)
def test_arguments_are_named(verb, argument, value, error):
    given = re.escape(str(value)) if not isinstance(value, dict | list | bytes) else ""
    with pytest.raises(error, match=rf"(?s){argument}.*{given}"):
        VERBS[verb](**{argument: value})


@pytest.mark.parametrize("folder", [3, None, b"x", ["a"]])
def test_a_folder_that_is_no_path(folder):
    given = re.escape(repr(folder))
    with pytest.raises(TypeError, match=f"folder={given}"):
        wf.save(model(), folder)
    with pytest.raises(TypeError, match=f"folder={given}"):
        wf.load(folder, model())


@pytest.mark.parametrize("live", ["yes", 1, None])
def test_live_is_a_bool(live):
    with pytest.raises(ValueError, match=f"live={live!r}"):
        wf.mask(model(), {"0.weight": torch.ones(4, 2, 3, 3)}, live=live)


@pytest.mark.parametrize("state", [None, "x", 3, model(), {"0.weight": [1.0]}])
def test_weights_that_are_no_state_dict(state):
    with pytest.raises(TypeError, match="state"):
        wf.expand(model(), rate=2, seed=0).fit(
            {**model().state_dict(), **state} if isinstance(state, dict) else state
        )


@pytest.mark.parametrize(("net", "charts"), [(3, []), (model(), 3), (model(), [3])])
def test_what_is_charted(net, charts):
    with pytest.raises(TypeError, match=r"is a int|has a int"):
        wf.Charted(net, charts)


def test_options_are_checked_when_made():
    with pytest.raises(TypeError, match=r"linear_depth=2\.5"):
        wf.ExpandOptions(linear_depth=2.5)
    with pytest.raises(ValueError, match="linear_depth=1"):
        wf.ExpandOptions(linear_depth=1)
    with pytest.raises(ValueError, match="execution='folded'"):
        wf.ExpandOptions(execution="folded")
    with pytest.raises(TypeError, match=r"example_input=\[1\]"):
        wf.ExpandOptions(example_input=[1])
    with pytest.raises(ValueError, match="bn='both'"):
        wf.SharingOptions(bn="both")
    with pytest.raises(TypeError, match="head_path=3"):
        wf.SharingOptions(head_path=3)


def test_a_projection_that_no_memory_holds():
    with torch.device("meta"):
        net = nn.Linear(100_000, 100_000)
    with pytest.raises(MemoryError, match=r"dim=1000000 .*kind='dense'"):
        wf.subspace(net, 1_000_000, kind="dense")


def test_integers_of_numpy_are_integers():
    net = wf.subspace(model(), np.int64(3), seed=np.int32(1))
    assert [tuple(p.shape) for p in net.charts[0].parameters()] == [(3,)]
    assert type(net.charts[0].config()["seed"]) is int
    wf.expand(model(), np.float32(2), seed=np.int64(0))
