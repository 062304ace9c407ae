"""What else a save keeps: dtypes, extra state, the net inside a wrapper."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold import Charted
from weightfold.methods import catalogue


class Counting(nn.Module):
    """A module with extra state that is no tensor."""

    def __init__(self, steps=0):
        super().__init__()
        self.conv, self.steps = nn.Conv2d(3, 4, 3), {"n": steps}

    def get_extra_state(self):
        return self.steps

    def set_extra_state(self, state):
        self.steps = state

    def forward(self, x):
        return self.conv(x)


def convolutions():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3))


@pytest.mark.parametrize("kind", list(catalogue()))
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_net_loads_in_its_dtype(cases, kind, dtype, tmp_path):
    case = cases.make(kind, dtype=torch.float32)
    net = case.net.to(dtype)
    wf.save(net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", cases.make(kind, dtype=torch.float32).model)
    for a, b in zip(net.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert a[0] == b[0] and a[1].dtype == b[1].dtype and torch.equal(a[1], b[1])
    if dtype == torch.float64:
        x = case.x.to(dtype)
        assert torch.equal(case.run(loaded.eval(), x), case.run(net.eval(), x))


def test_tensors_of_several_dtypes(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2).double())
    wf.save(net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert [p.dtype for p in loaded.parameters()] == [p.dtype for p in net.parameters()]


def test_extra_state(tmp_path):
    net = wf.expand(Counting(3), rate=2, seed=0)
    wf.save(net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", Counting())
    assert loaded.deploy().steps == {"n": 3}
    bad = Counting()
    bad.steps = {1, 2}
    with pytest.raises(TypeError, match="_extra_state"):
        wf.save(bad, tmp_path / "other")
    assert not (tmp_path / "other").exists()


WRAPS = [
    lambda net: torch.compile(net, backend="eager"),
    nn.DataParallel,
    lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
    lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
    lambda net: net,
]
X = torch.randn(1, 3, 8, 8)
VERBS = {
    "expand": lambda net: wf.expand(net, rate=2, seed=0),
    "subspace": lambda net: wf.subspace(net, 5),
    "mask": lambda net: wf.mask(net, {"0.weight": torch.ones(6, 3, 3, 3)}),
    "share": lambda net: wf.share(
        net, {"a": 4}, wf.plan_sharing(net, "bottom", 0.5, example_input=X, head_path="1")
    ),
    "shrink": lambda net: wf.shrink(net, X),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("verb", VERBS)
def test_verbs_take_off_what_wraps_a_net(verb, wrap):
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(216, 4))
    if verb == "share":
        plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Linear(6, 4))
    net = VERBS[verb](wrap(plain))
    deployed = net.deploy(net.default_context()) if isinstance(net, Charted) else net
    assert list(deployed.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_refuse_a_module_that_holds_a_net(verb):
    holds = nn.ModuleDict({"body": wf.expand(convolutions(), rate=2, seed=0)})
    with pytest.raises(TypeError, match=r"ModuleDict .*'body'"):
        VERBS[verb](holds)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_checkpoint_of_a_wrapped_net_says_what_to_strip(prefix):
    net = wf.expand(convolutions(), rate=2, seed=0)
    state = {prefix + n: t for n, t in convolutions().state_dict().items()}
    with pytest.raises(KeyError, match=f"strip '{prefix}'"):
        net.fit(state)


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_wraps_a_net_is_taken_off(wrap, tmp_path):
    net = wf.expand(convolutions(), rate=2, seed=0)
    wf.save(wrap(net), tmp_path / "net")
    loaded = wf.load(tmp_path / "net", convolutions())
    assert isinstance(loaded, Charted)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(x), net(x))


def test_a_module_that_holds_a_net_is_refused(tmp_path):
    net = nn.ModuleDict({"body": wf.expand(convolutions(), rate=2, seed=0)})
    with pytest.raises(TypeError, match="'body'"):
        wf.save(net, tmp_path / "net")
