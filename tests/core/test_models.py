"""Models of every build: tied, frozen, shared, lazy, recurrent, parametrized, checkpointed."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

import weightfold as wf
from weightfold import Charted
from weightfold.methods.expand.chart import Expansion
from weightfold.methods.mask.chart import Mask


def ones(model: nn.Module, *names: str) -> Mask:
    """A mask chart over tensors by these very names, aliases too; masks of ones."""
    return Mask.build(model, names=list(names))


def tensors_and_gradients(cases, net, x):
    net.zero_grad()
    out = net(x)
    out.square().mean().backward()
    return out, cases.gradients(net)


@pytest.mark.parametrize("name", ["up.weight", "down.weight"])
def test_tied_weights_by_either_name(cases, name):
    model, x = cases.Tied().double(), torch.randn(4, 6).double()
    net = Charted(model, [ones(model, name)])
    out, found = tensors_and_gradients(cases, net, x)
    expected, plain = tensors_and_gradients(cases, model, x)
    torch.testing.assert_close(out, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(
        found[f"charts.0.{name}"], plain["up.weight"], rtol=1e-12, atol=1e-14
    )
    deployed = net.deploy()
    assert deployed.up.weight is deployed.down.weight
    assert list(deployed.state_dict()) == list(model.state_dict())
    assert net.model.up.weight is None and net.model.down.weight is None
    assert list(net.theta()) == ["up.weight"]


def test_two_tensors_that_a_chart_makes_equal_are_not_tied(cases):
    """deploy ties what was tied, not what happens to be one tensor."""

    class Same(Mask):
        def forward(self, **at):
            theta = super().forward(**at)
            return {name: next(iter(theta.values())) for name in theta}

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net = Charted(model, [Same.build(model, names=["0.weight", "1.weight"])])
    deployed = net.deploy()
    assert torch.equal(deployed[0].weight, deployed[1].weight)
    assert deployed[0].weight is not deployed[1].weight


def test_two_charts_for_two_aliases_are_refused(cases):
    model = cases.Tied()
    with pytest.raises(ValueError, match=r"'down\.weight' is computed twice.*tied"):
        Charted(model, [ones(model, "up.weight"), ones(model, "down.weight")])


def test_expanding_a_tied_layer_counts_it_once(cases):
    model, x = cases.Tied().double(), torch.randn(4, 6).double()
    net = wf.expand(model, conv=None, linear="fc", where=["up", "down"], init="preserve", rate=2)
    torch.testing.assert_close(net(x), model(x), rtol=1e-10, atol=1e-10)
    assert list(net.theta()) == ["up.weight", "up.bias"]
    deployed = net.deploy()
    assert deployed.up.weight is deployed.down.weight


@pytest.mark.parametrize("name", ["first.weight", "second.weight"])
def test_a_module_registered_and_called_twice(cases, name):
    model, x = cases.Twice().double(), torch.randn(4, 5).double()
    net = Charted(model, [ones(model, name)])
    out, found = tensors_and_gradients(cases, net, x)
    expected, plain = tensors_and_gradients(cases, model, x)
    torch.testing.assert_close(out, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(found[f"charts.0.{name}"], plain["first.weight"])
    assert net.model.first.weight is None, "theta was left behind"
    deployed = net.deploy()
    assert deployed.first is deployed.second
    assert list(deployed.state_dict()) == list(model.state_dict())


def test_a_module_registered_twice_runs_as_a_chain(cases):
    model, x = cases.Twice().double(), torch.randn(4, 5).double()
    kwargs = {"conv": None, "linear": "fc", "where": "first", "rate": 2, "seed": 0}
    chain, fold = (wf.expand(model, execution=e, **kwargs) for e in ("chain", "fold"))
    a, b = tensors_and_gradients(cases, chain, x), tensors_and_gradients(cases, fold, x)
    torch.testing.assert_close(a[0], b[0], rtol=1e-12, atol=1e-12)
    assert cases.gap(a[1], b[1]) <= 1e-12
    deployed = chain.deploy()
    assert deployed.first is deployed.second
    torch.testing.assert_close(deployed(x), a[0])


def test_frozen_tensors_stay_frozen_and_come_back_frozen(cases):
    model = cases.Conv()
    model.conv1.weight.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    net = Charted(model, [ones(model, "conv1.weight", "conv2.weight")])
    net(torch.randn(2, 2, 6, 6)).sum().backward()
    assert set(cases.gradients(net)) == {
        "charts.0.conv2.weight", "model.conv1.bias", "model.norm.weight", "model.norm.bias",
        "model.conv2.bias", "model.head.weight",
    }  # fmt: skip
    expected = {n: p.requires_grad for n, p in model.named_parameters()}
    assert {n: p.requires_grad for n, p in net.deploy().named_parameters()} == expected


def test_frozen_layers_are_not_expanded_and_not_in_the_subspace(cases):
    model = cases.Conv()
    model.conv1.requires_grad_(False)
    net = wf.expand(model, rate=2)
    assert list(net.theta()) == ["conv2.weight", "conv2.bias"]
    assert "conv1.weight" not in wf.subspace(model, dim=3).theta()


def test_freezing_psi_works(cases, case):
    case.net.charts.requires_grad_(False)
    assert not any(t.requires_grad for t in case.net.theta(case.at).values())
    out = case.run()
    assert out.requires_grad == any(p.requires_grad for p in case.net.parameters())
    if out.requires_grad:
        out.sum().backward()
    assert all(n.startswith("model.") for n in cases.gradients(case.net))
    assert all(p.requires_grad for p in case.net.deploy(case.at).parameters())


def test_reassigned_buffers(cases):
    """A module that replaces its buffer; the buffer is charted in one net and not in the other."""
    model, x = cases.Counter(), torch.randn(2, 3)

    class Own(Mask):
        """Computes a buffer as well, as a domain's statistics would be."""

        def __init__(self, *args):
            super().__init__(*args)
            self.register_buffer("count", torch.zeros(2))

        def forward(self, **at):
            return super().forward(**at) | {"n": self.count}

    for net in (Charted(model, [ones(model, "lin.weight")]),
                Charted(model, [Own.build(model, names=["lin.weight"])])):  # fmt: skip
        outs = [net(x) for _ in range(3)]
        torch.testing.assert_close(outs[2], outs[0] + 2)
        assert net.deploy().n.tolist() == [3, 3]
    assert net.charts[0].count.tolist() == [3, 3]
    assert net.model.n is None
    assert model.n.tolist() == [0, 0]


def test_an_exception_in_forward_leaves_the_net_usable(cases, case):
    expected, kept = case.run(case.net.eval()), list(case.net.model.state_dict())
    deployed = case.net.deploy(case.net.default_context()).state_dict()
    assert not set(deployed) <= set(kept)  # the slots of what is computed are empty
    with pytest.raises((RuntimeError, ValueError)):
        case.run(x=torch.randn(1, 99, dtype=torch.float64))
    assert list(case.net.model.state_dict()) == kept
    assert torch.equal(case.run(), expected)


def test_hooks_survive_and_see_theta(cases):
    model = cases.Conv()
    seen = []
    model.conv1.register_forward_hook(lambda m, args, out: seen.append(m.weight))
    net = wf.mask(model, {"conv1.weight": torch.zeros(4, 2, 3, 3)})
    net(torch.randn(2, 2, 6, 6))
    assert not seen[0].any() and seen[0].shape == (4, 2, 3, 3)
    net.deploy()(torch.randn(2, 2, 6, 6))
    assert len(seen) == 2


def test_lazy_layers(cases):
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))
    with pytest.raises(
        ValueError, match=r"'1\.weight' of the lazy layer LazyLinear.*run the model"
    ):
        Charted(model, [_Named("1.weight")])
    net = wf.mask(model, {"0.weight": torch.ones(4, 3)})
    assert net(torch.randn(5, 3)).shape == (5, 2)


class _Named(Mask):
    """Computes one tensor of any name, shape and dtype."""

    def __init__(self, name, shape=(2, 4), dtype=torch.float32):
        super().__init__({}, {})
        self.psi = nn.Parameter(torch.zeros(shape, dtype=dtype))
        self.name = name

    def forward(self, **at):
        return {self.name: self.psi * 1}


@pytest.mark.parametrize("verb", ["mask", "expand", "subspace"])
def test_lazy_layers_are_refused_by_the_verbs(verb):
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    with pytest.raises(ValueError, match=r"0\.weight.*[Ll]azy"):
        if verb == "mask":
            wf.mask(model, {"0.weight": torch.ones(4, 2, 3, 3)})
        elif verb == "subspace":
            wf.subspace(model, dim=2)
        else:
            wf.expand(model)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def test_recurrent_weights_are_refused_and_others_work_beside_them(cases):
    model, x = Recurrent().double(), torch.randn(2, 5, 3).double()
    with pytest.raises(
        ValueError, match=r"'lstm\.weight_ih_l0'.*recurrent layer LSTM.*leave it out"
    ):
        Charted(model, [ones(model, "lstm.weight_ih_l0")])
    with pytest.raises(ValueError, match="recurrent layer LSTM"):
        wf.subspace(model, dim=4)
    net = wf.subspace(model, dim=4, where="head.*")
    torch.testing.assert_close(net(x), model(x))
    assert tensors_and_gradients(cases, net, x)[1]["model.lstm.weight_hh_l0"].any()
    clone = copy.deepcopy(net)
    torch.testing.assert_close(clone(x), net(x))
    torch.testing.assert_close(net.deploy()(x), net(x))


def test_parametrized_tensors_are_named(cases):
    model = nn.Sequential(weight_norm(nn.Conv2d(2, 3, 3)), nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(KeyError, match=r"no tensor '0\.weight'.*\.original"):
        Charted(model, [_Named("0.weight")])
    with pytest.raises(ValueError, match="parametri"):
        wf.expand(model, where="0")
    name = "0.parametrizations.weight.original1"
    x = torch.randn(2, 2, 6, 6)
    net = Charted(model, [ones(model, name)])
    torch.testing.assert_close(net(x), model(x))
    net(x).sum().backward()
    assert net.charts[0].get_parameter(name).grad.any()


class Inside(nn.Module):
    """Checkpoints a part of itself."""

    def __init__(self, part):
        super().__init__()
        self.part, self.head = part, nn.Linear(5, 2)

    def forward(self, x):
        return self.head(checkpoint(self.part, x, use_reentrant=False))


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_checkpointing_inside_the_model_is_loud(cases, execution):
    model = Inside(nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)))
    x = torch.randn(3, 5)
    net = wf.expand(model, conv=None, linear="fc", where="part.0", rate=2, execution=execution)
    out = net(x)
    with pytest.raises(RuntimeError, match=r"\.weight is computed.*Activation checkpointing"):
        out.sum().backward()


def test_checkpointing_of_uncharted_parts_works(cases):
    model, x = (
        Inside(nn.Sequential(nn.Linear(5, 5), nn.Tanh())).double(),
        torch.randn(3, 5).double(),
    )
    net = wf.mask(model, {"head.weight": torch.ones(2, 5)})
    _, found = tensors_and_gradients(cases, net, x)
    _, plain = tensors_and_gradients(cases, model, x)
    for name, g in found.items():
        torch.testing.assert_close(g, plain[name.removeprefix("model.").removeprefix("charts.0.")])


def test_misspelt_names_list_the_nearest(cases):
    with pytest.raises(KeyError, match=r"no tensor 'conv1\.weigth'; nearest: conv1\.weight"):
        Charted(cases.Conv(), [_Named("conv1.weigth")])


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 2, 5, 5), torch.float32), ((4, 2, 3, 3), torch.float64)]
)
def test_wrong_shape_and_dtype(cases, shape, dtype):
    with pytest.raises(ValueError, match=r"gives 'conv1\.weight' as .*but the model's is torch"):
        Charted(cases.Conv(), [_Named("conv1.weight", shape, dtype)])


def test_two_charts_for_one_tensor(cases):
    model = cases.Conv()
    with pytest.raises(ValueError, match=r"'conv1\.weight' is computed twice, by chart 0 and"):
        Charted(model, [ones(model, "conv1.weight"), ones(model, "norm.bias", "conv1.weight")])


def test_errors_change_nothing(cases):
    model = cases.Conv()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    for chart in (_Named("conv9.weight"), _Named("conv1.weight"), _Named("head.weight")):
        with pytest.raises((KeyError, ValueError)):
            Charted(model, [ones(model, "conv2.weight"), chart])
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_tensor_at_the_root(cases):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3))

        def forward(self, x):
            return nn.functional.linear(x, self.weight)

    model, x = Root(), torch.randn(4, 3)
    net = Charted(model, [ones(model, "weight")])
    assert torch.equal(net(x), model(x)) and torch.equal(net.deploy()(x), model(x))


def test_keyword_arguments_and_several_outputs(cases):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 3)

        def forward(self, x, *, scale):
            return {"out": self.lin(x) * scale, "x": x}

    model, x = Pair(), torch.randn(2, 3)
    net = wf.mask(model, {"lin.weight": torch.ones(3, 3)})
    assert torch.equal(net(x, scale=2.0)["out"], model(x, scale=2.0)["out"])


def test_attention_fast_path(cases):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    net = Charted(model, [ones(model, "self_attn.in_proj_weight", "linear1.weight")]).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(net(x), model(x), rtol=1e-5, atol=1e-5)


def test_functional_call_on_the_net(cases, case):
    zeros = {n: torch.zeros_like(p) for n, p in case.net.named_parameters()}
    out = functional_call(case.net.eval(), zeros, (case.x,), {"at": case.at})
    assert not torch.equal(out, case.run())
    with torch.no_grad():
        for p in case.net.parameters():
            p.zero_()
    assert torch.equal(out, case.run())


def test_expansion_of_a_bias_the_model_lacks(cases):
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False))
    other = nn.Sequential(nn.Conv2d(2, 3, 3))
    chart = wf.expand(other, rate=2).charts[0]
    assert isinstance(chart, Expansion)
    with pytest.raises(KeyError, match=r"no tensor '0\.bias'"):
        Charted(model, [chart])


class Functional(nn.Module):
    """Reads a layer's tensors instead of calling the layer."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return torch.sin(nn.functional.linear(x, self.lin.weight, self.lin.bias))


# an absent bias is legal for F.linear: without a guard it would be recomputed without it, silently
@pytest.mark.parametrize("name", ["part.lin.weight", "part.lin.bias"])
def test_checkpointing_inside_where_tensors_are_read_is_loud(name):
    model = Inside(Functional())
    model.head = nn.Linear(4, 2)
    net = Charted(model, [ones(model, name)])
    out = net(torch.randn(3, 4))
    with pytest.raises((RuntimeError, TypeError)):
        out.sum().backward()
