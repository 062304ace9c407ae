"""wf.expand: which layers it takes, and what it refuses, with an error that names the remedy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import weightfold as wf


class Small(nn.Module):
    """Two convolutions with a kernel, one without, three Linears, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, (1, 5)), nn.BatchNorm2d(6))
        self.up = nn.ConvTranspose2d(6, 2, 3)
        self.fc1, self.fc2, self.head = nn.Linear(128, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.up(self.block(self.stem(x))).flatten(1)
        return self.head(self.fc2(self.fc1(x)))


X = torch.zeros(2, 3, 6, 10)


def layers(net):
    return list(net.charts[0].config()["layers"])


@pytest.fixture
def model():
    return Small()


# --- which layers ------------------------------------------------------------------------------


def test_default_takes_every_convolution_with_a_kernel_larger_than_one(model):
    assert layers(wf.expand(model)) == ["stem", "block.1"]


def test_fc_adds_every_linear_but_the_last(model):
    assert layers(wf.expand(model, linear="fc")) == ["stem", "block.1", "fc1", "fc2"]
    assert layers(wf.expand(model, conv=None, linear="fc")) == ["fc1", "fc2"]


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("stem", ["stem"]),
        ("block.*", ["block.0", "block.1"]),
        (["head", "stem"], ["stem", "head"]),
        (nn.Linear, ["fc1", "fc2", "head"]),
        ([nn.Linear, "block.0"], ["block.0", "fc1", "fc2", "head"]),
        (lambda name, layer: name.startswith("fc") and layer.out_features == 4, ["fc2"]),
        (lambda name, layer: getattr(layer, "kernel_size", None) == (1, 1), ["block.0"]),
    ],
)
def test_where(model, where, chosen):
    assert layers(wf.expand(model, linear="fc", where=where)) == chosen


def test_a_type_chooses_among_the_layers_that_the_strategy_takes(model):
    assert layers(wf.expand(model, where=nn.Conv2d)) == ["stem", "block.0", "block.1"]


def test_frozen_layers_stay_unless_named(model):
    model.stem.requires_grad_(False)
    assert layers(wf.expand(model)) == ["block.1"]
    net = wf.expand(model, where=["stem"])
    assert not any(p.requires_grad for p in net.charts[0].parameters())


def test_tied_weights_are_expanded_once():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)).double()
    model[1].weight = model[0].weight
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    net = wf.expand(model, init="preserve", example_input=x)
    assert layers(net) == ["0"]
    torch.testing.assert_close(net(x), model(x), rtol=1e-10, atol=1e-12)
    plain = net.deploy()
    assert plain[0].weight is plain[1].weight


def test_a_layer_used_twice_and_registered_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(2, 2, 3, padding=1)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))

    model = Twice().double()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    for execution in ("fold", "chain"):
        net = wf.expand(model, init="preserve", execution=execution)
        assert layers(net) == ["a"]
        torch.testing.assert_close(net(x), model(x), rtol=1e-10, atol=1e-12)
        plain = net.deploy()
        assert plain.a is plain.b


@pytest.mark.parametrize("init", ["paper", "variance", "preserve"])
@pytest.mark.parametrize("execution", ["auto", "fold", "chain"])
def test_the_model_given_stays_as_it_is(model, init, execution):
    torch.manual_seed(1)
    before = copy.deepcopy(model.state_dict())
    parameters = {n: id(p) for n, p in model.named_parameters()}
    options = {"linear": "fc", "init": init, "execution": execution, "example_input": X}
    net = wf.expand(model, **options)
    for p in net.parameters():
        p.data.add_(1)
    net(X).sum().backward()
    assert {n: id(p) for n, p in model.named_parameters()} == parameters
    assert all(p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(after[n], t) for n, t in before.items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert net.deploy().state_dict().keys() == before.keys()


@pytest.mark.parametrize("name", ["layers", "chains", "blocks", "features", "psi", "net"])
def test_any_name_of_a_layer(name):
    model = nn.Module()
    model.add_module(name, nn.Sequential(nn.Conv2d(2, 3, 3)))
    net = wf.expand(model)
    assert net.deploy().state_dict().keys() == model.state_dict().keys()


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv": "dense"}, r"conv='dense'; choose one of .*'cl'.*'ck'"),
        ({"linear": True}, r"linear=True; choose one of .*'fc'"),
        ({"first": "r"}, r"first='r'; give one of .*'rm'.*'m'"),
        ({"init": "kaiming"}, r"init='kaiming'; choose one of .*'paper'.*'preserve'"),
        ({"execution": "online"}, r"execution='online'; give one of .*'fold'.*'chain'"),
        ({"linear": "fc", "linear_depth": 1}, r"linear_depth=1; .* at least 2"),
        ({"rate": 0}, r"rate=0; .* positive"),
        ({"rate": -4}, r"rate=-4; .* positive"),
        ({"rate": float("nan")}, r"rate=nan; .* positive"),
        ({"rate": float("inf")}, r"rate=inf; .* positive"),
        ({"rate": 0.1}, r"layer 'stem': rate=0.1 .*use rate >= 0\.33"),
        ({"where": "sten"}, r"where='sten' matches no layer.*stem"),
        ({"where": ["stem", "nothing.*"]}, r"where='nothing\.\*' matches no layer"),
        ({"where": []}, r"where=\[\] chooses no layer"),
        ({"where": "fc1"}, r"where='fc1' matches no layer that conv='cl', linear=None take"),
        ({"where": ["stem", "fc1"]}, r"where='fc1' matches no layer that conv='cl', linear=None"),
        ({"where": nn.BatchNorm2d}, r"BatchNorm2d.* matches no layer that"),
        ({"where": nn.Conv2d, "conv": None, "linear": "fc"}, r"Conv2d.* matches no layer that"),
        ({"conv": None}, r"nothing to expand: conv=None and linear=None find"),
        ({"where": "up"}, r"layer 'up' is a transposed convolution.*leave it out"),
        ({"where": nn.ConvTranspose2d}, r"layer 'up' is a transposed convolution"),
        ({"example_input": torch.zeros(2, 5, 6, 10)}, r"example_input of shape \(2, 5, 6, 10\)"),
        ({"example_input": torch.zeros(2, 3, 99, 9)}, r"example_input of shape \(2, 3, 99, 9\)"),
    ],
)
def test_bad_arguments(model, options, message):
    with pytest.raises(ValueError, match=message):
        wf.expand(model, **options)


def test_where_and_example_input_of_a_wrong_type(model):
    with pytest.raises(TypeError, match="where has the item 3"):
        wf.expand(model, where=[3])
    with pytest.raises(TypeError, match=r"(?s)example_input=array.*Tensor"):
        wf.expand(model, example_input=np.zeros((1, 3, 6, 10)))


def test_even_kernel_with_ck_names_layer_kernel_and_remedy():
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, (3, 4)))
    with pytest.raises(ValueError, match=r"layer '1': conv=\"ck\".*\(3, 4\); use \"cl\""):
        wf.expand(model, conv="ck")
    assert layers(wf.expand(model, conv="ck", where="0")) == ["0"]


def test_nothing_trainable(model):
    with pytest.raises(ValueError, match=r"nothing to expand.*trainable"):
        wf.expand(model.requires_grad_(False))
    with pytest.raises(ValueError, match="nothing to expand"):
        wf.expand(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))


@pytest.mark.parametrize("layer", [nn.LazyConv2d(4, 3), nn.LazyLinear(4)])
def test_lazy_layers(layer):
    model = nn.Sequential(layer, nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"'0\.weight' of the lazy layer Lazy.*run the model once"):
        wf.expand(model, linear="fc")


def test_parametrized_layers():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match=r"layer '0' is parametrized.*remove that first"):
        wf.expand(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hide", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_layers_whose_weight_a_hook_computes(hide):
    model = nn.Sequential(hide(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match=r"weight of layer '0' is no parameter of it.*remove"):
        wf.expand(model)


def test_a_bare_layer_is_refused():
    with pytest.raises(ValueError, match=r"net is itself a Conv2d.*nn\.Sequential"):
        wf.expand(nn.Conv2d(3, 4, 3))


class Standardized(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def test_a_subclass_with_its_own_forward_folds_but_does_not_run_as_a_chain():
    model = nn.Sequential(Standardized(3, 4, 3)).double()
    with pytest.raises(ValueError, match=r"'0' .*execution=\"chain\".*Standardized.*\"fold\""):
        wf.expand(model, execution="chain")
    x = torch.randn(1, 3, 3, 3, dtype=torch.float64)
    net = wf.expand(model, 8, init="preserve", example_input=x)
    assert net.charts[0].config()["layers"]["0"]["execution"] == "fold"
    torch.testing.assert_close(net(x), model(x), rtol=1e-10, atol=1e-12)
    assert type(net.deploy()[0]) is Standardized


def test_a_tied_layer_does_not_run_as_a_chain():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"layer '0' cannot run.*tied"):
        wf.expand(model, execution="chain")


def test_a_layer_of_another_chart_does_not_run_as_a_chain(model):
    masked = wf.mask(model, {"stem.weight": torch.ones(4, 3, 3, 3)})
    with pytest.raises(ValueError, match=r"stem' cannot run.*computed by another chart"):
        wf.expand(masked, execution="chain")
    assert layers(wf.expand(masked, where="block.1", execution="chain")) == ["model.block.1"]
    masked = wf.mask(model, {"stem.bias": torch.ones(4)})
    with pytest.raises(ValueError, match=r"stem' cannot run.*computed by another chart"):
        wf.expand(masked, execution="chain")


def test_a_layer_with_hooks_does_not_run_as_a_chain(model):
    """The chain would run in its place, without the hooks."""
    model.stem.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match=r"layer 'stem' cannot run.*hooks"):
        wf.expand(model, execution="chain")
    net = wf.expand(model, where="stem", init="preserve")
    x = torch.randn_like(X)
    torch.testing.assert_close(net(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hooked", [False, True])
def test_auto_folds_a_layer_with_hooks_even_where_the_chain_is_cheaper(hooked):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    if hooked:
        model[0].register_full_backward_hook(lambda module, inputs, outputs: None)
    net = wf.expand(model, 8, example_input=torch.empty(1, 3, 3, 3))
    assert net.charts[0].config()["layers"]["0"]["execution"] == ("fold" if hooked else "chain")


# --- over and under other charts ---------------------------------------------------------------


def plain_double():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 5), nn.Flatten(), nn.Linear(12, 3)
    )
    return model.double(), torch.randn(2, 2, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("names", [["0.weight"], ["0.weight", "0.bias"], ["0.bias"]])
def test_expand_over_mask(names):
    """theta = mask * fold(psi), and the bias as the mask leaves it."""
    model, x = plain_double()
    masks = {n: (torch.rand(model.get_parameter(n).shape) < 0.5) for n in names}
    masked = wf.mask(model, masks)
    net = wf.expand(masked, 2, init="preserve", seed=0)
    torch.testing.assert_close(net(x), masked(x), rtol=1e-10, atol=1e-12)
    for p in net.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    plain = net.deploy()
    for name, mask in masks.items():
        assert not plain.get_parameter(name)[~mask].any()
        assert plain.get_parameter(name)[mask].all()
    torch.testing.assert_close(plain(x), net(x), rtol=1e-12, atol=1e-12)
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_mask_over_expand():
    """Masks on a factor, and on a tensor that no chart computes."""
    model, x = plain_double()
    net = wf.expand(model, 2, where="0", execution="chain", seed=0)
    masks = {"0.1.weight": torch.rand(8, 4, 3, 3) < 0.5, "4.weight": torch.rand(3, 12) < 0.5}
    both = wf.mask(net, masks)
    factor = net.charts[0].get_parameter("0.1.weight").detach().clone()
    net.charts[0].get_parameter("0.1.weight").data.mul_(masks["0.1.weight"])
    net.model[4].weight.data.mul_(masks["4.weight"])
    torch.testing.assert_close(both(x), net(x), rtol=1e-12, atol=1e-12)
    assert not torch.equal(net.charts[0].get_parameter("0.1.weight"), factor)
    assert both.deploy().state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_subspace_over_expand(execution):
    model, x = plain_double()
    net = wf.expand(model, 2, "ck", execution=execution, seed=0)
    both = wf.subspace(net, dim=40)
    assert sum(p.numel() for p in both.parameters()) == 40
    torch.testing.assert_close(both(x), net(x), rtol=1e-12, atol=1e-12)
    both.charts[0].psi.data.normal_()
    assert not torch.allclose(both(x), net(x))
    torch.testing.assert_close(both(x), both.deploy()(x), rtol=1e-12, atol=1e-12)


def test_expand_over_a_subspace_of_the_weights_is_refused():
    model, _ = plain_double()
    net = wf.subspace(model, dim=3, where="0.weight")
    assert layers(wf.expand(net)) == ["model.2"]
    with pytest.raises(ValueError, match="layer '0' is computed by a chart already"):
        wf.expand(net, where="0")


def test_expanding_again():
    """Layers already expanded are left alone; naming one is an error."""
    model, x = plain_double()
    once = wf.expand(model, 2, where="0", execution="chain", seed=0)
    twice = wf.expand(once, 2, execution="chain", init="preserve", seed=0)
    assert layers(twice) == ["model.2"]
    torch.testing.assert_close(twice(x), once(x), rtol=1e-10, atol=1e-12)
    assert twice.deploy().state_dict().keys() == model.state_dict().keys()
    for where in ("0", "0*"):
        with pytest.raises(ValueError, match=r"layer '0' is computed by a chart already"):
            wf.expand(once, where=where)
    with pytest.raises(ValueError, match="nothing to expand"):
        wf.expand(twice)
    folds = wf.expand(model, 2, seed=0)
    with pytest.raises(ValueError, match=r"layer '0' is computed by a chart already"):
        wf.expand(folds, where=nn.Conv2d)


@pytest.mark.parametrize("names", [["0.weight"], ["0.weight", "0.bias"]])
def test_expand_over_mask_comes_back_from_disk(names, tmp_path):
    model, x = plain_double()
    masks = {n: (torch.rand(model.get_parameter(n).shape) < 0.5) for n in names}
    net = wf.expand(wf.mask(model, masks), 2, seed=0)
    wf.save(net, tmp_path)
    assert torch.equal(wf.load(tmp_path, model)(x), net(x))
