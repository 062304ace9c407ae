"""Tensors without values or of other kinds: right, or refused by name."""

import pytest
import torch
from torch import nn

import weightfold as wf

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


MASKS = {"0.weight": torch.ones(4, 3, 3, 3), "3.weight": torch.ones(3, 144)}
VERBS = {
    "paper": lambda net: wf.expand(net, rate=2, seed=0),
    "subspace": lambda net: wf.subspace(net, 3),
    "mask": lambda net: wf.mask(net, MASKS),
    "live": lambda net: wf.mask(net, MASKS, live=True),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_on_the_meta_device_can_be_planned_with(verb):
    with torch.device("meta"):
        model = network()
    net = VERBS[verb](model)
    assert net(X.to("meta")).shape == (2, 3)


@pytest.mark.parametrize("conv", ["cl", "ck"])
@pytest.mark.parametrize("init", ["preserve", "variance"])
def test_a_start_from_weights_needs_them(conv, init):
    with torch.device("meta"):
        model = network()
    with pytest.raises(ValueError, match=r"'0'.* meta "):
        wf.expand(model, rate=2, conv=conv, init=init, seed=0)


@pytest.mark.parametrize("verb", ["subspace", "live"])
def test_tensors_of_several_devices_are_refused(verb):
    model = network()
    model[3].to("meta")
    with pytest.raises(ValueError, match=r"'meta'.*'cpu'|'cpu'.*'meta'"):
        VERBS[verb](model)


@pytest.mark.parametrize("partly", [False, True])
def test_what_has_no_values_is_neither_saved_nor_loaded_over(partly, tmp_path):
    model = network()
    model[3 if partly else 0].to("meta")
    name = "3.weight" if partly else "0.weight"
    wf.save(network(), tmp_path / "net")
    for run in (
        lambda: wf.save(model, tmp_path / "other"),
        lambda: wf.load(tmp_path / "net", model),
        lambda: wf.shrink(model, X),
    ):
        with pytest.raises(ValueError, match=f"'{name}' is on the meta device"):
            run()
    assert not (tmp_path / "other").exists()


def test_lazy_layers_are_named(tmp_path):
    lazy = nn.Sequential(*network()[:3], nn.LazyLinear(3))
    wf.save(wf.expand(network(), rate=2, seed=0), tmp_path / "net")
    for run in (
        lambda: wf.save(lazy, tmp_path / "other"),
        lambda: wf.save(wf.expand(lazy, rate=2, seed=0), tmp_path / "other"),
        lambda: wf.load(tmp_path / "net", lazy),
        lambda: wf.shrink(lazy, X),
    ):
        with pytest.raises(ValueError, match=r"'(model\.)?3.weight' of a lazy layer"):
            run()


class Converted(nn.Module):
    """Its convolution is of another dtype; forward casts."""

    def __init__(self, dtype):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        weight = (self.conv.weight.detach() * 100).to(dtype)
        self.conv.weight = nn.Parameter(weight, dtype.is_floating_point or dtype.is_complex)
        self.counts = nn.Parameter(torch.arange(4), requires_grad=False)

    def forward(self, x):
        weight = self.conv.weight.to(torch.complex64).real.to(x.dtype) / 100
        return self.head(nn.functional.conv2d(x, weight).mean((2, 3)) * self.counts)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8])
def test_only_real_weights_are_expanded_or_cut_by_a_subspace(dtype):
    with pytest.raises(ValueError, match=rf"'conv'.*{dtype}"):
        wf.expand(Converted(dtype), where="conv", seed=0)
    if dtype.is_complex:
        with pytest.raises(ValueError, match=str(dtype)):
            wf.subspace(Converted(dtype), 3, where="conv.weight")
        with pytest.raises(ValueError, match=str(dtype)):
            wf.subspace(Converted(dtype), 3)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8])
def test_other_layers_work_beside_them(dtype, tmp_path):
    torch.manual_seed(0)
    model = Converted(dtype)
    net = wf.subspace(model, 3, where="head.*")
    net(X).sum().backward()
    wf.save(net, tmp_path / "net")
    loaded, deployed = wf.load(tmp_path / "net", Converted(dtype)), net.deploy()
    assert torch.equal(loaded(X), net(X)) and torch.equal(deployed(X), model(X))
    assert deployed.conv.weight.dtype == dtype and deployed.counts.dtype == torch.int64


def test_verify_names_a_forward_that_insists_on_a_dtype():
    class Insists(nn.Sequential):
        def forward(self, x):
            return super().forward(x.float())

    with pytest.raises(ValueError, match=r"Insists .*float64"):
        wf.subspace(Insists(*network()), 3).verify(X)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_that_are_not_saved_keep_what_they_are(dtype, tmp_path):
    def model():
        net = network()
        net.register_buffer("phase", torch.tensor([1j]), persistent=False)
        net.register_buffer("fine", torch.tensor([0.1], dtype=torch.float64), persistent=False)
        return net

    net = wf.subspace(model(), 3)
    wf.save(net.double() if dtype == torch.float64 else net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", model())
    assert loaded.model.phase.item() == 1j and loaded.charts[0].psi.dtype == dtype
    assert loaded.model.fine.item() == torch.tensor(0.1, dtype=torch.float64).item()
