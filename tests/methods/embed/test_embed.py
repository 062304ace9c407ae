"""Convolutions as larger linear layers: the function, the gradient, sizes, what is refused."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.methods.embed.chart import ConvolutionMatrix, convolution_of
from weightfold.methods.embed.geometry import Geometry
from weightfold.methods.embed.layers import DenseConv, LocalConv
from weightfold.methods.embed.strided import gram, nearest_kernel, read, write
from weightfold.methods.embed.verb import lift

SHAPE = (2, 6, 7)
X = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Residual(nn.Module):
    """A sum of two ways."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.skip = nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(channels, 4, 1)

    def forward(self, x):
        return torch.tanh(self.conv(x)) + self.skip(x)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(),
        Residual(4), nn.MaxPool2d(2, 1), nn.Dropout(0.1),
        nn.Conv2d(4, 3, 2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    ).double()  # fmt: skip


LAYERS = {
    "plain": (nn.Conv2d(2, 4, 3), SHAPE),
    "strided": (nn.Conv2d(2, 4, (3, 2), stride=(2, 3), padding=(2, 1)), SHAPE),
    "dilated": (nn.Conv2d(2, 4, 3, padding=2, dilation=2), SHAPE),
    "grouped": (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (4, 5, 4)),
    "depthwise": (nn.Conv2d(3, 3, 3, padding=1, groups=3), (3, 5, 4)),
    "one by one": (nn.Conv2d(2, 4, 1, stride=2), SHAPE),
    "mostly padding": (nn.Conv2d(1, 2, 5, padding=4, stride=3), (1, 2, 2)),
    "same": (nn.Conv2d(2, 4, (4, 3), padding="same"), SHAPE),
    "circular": (nn.Conv2d(2, 4, 3, padding=2, padding_mode="circular"), SHAPE),
    "reflect": (nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect", stride=2), SHAPE),
    "replicate": (nn.Conv2d(2, 3, 3, padding=2, padding_mode="replicate", dilation=2), SHAPE),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9)),
    "three dimensions": (nn.Conv3d(2, 3, 2, stride=2, padding=1), (2, 4, 3, 4)),
}
SPACES = [("dense", "fold"), ("dense", "keep"), ("local", "fold"), ("lowrank", "fold"),
          ("lowrank", "keep")]  # fmt: skip


def embedded(net, shape, space, padding="fold"):
    return wf.embed(net, shape, space, padding=padding, rank=2 if space == "lowrank" else None)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("space", "padding"), SPACES)
def test_a_layer_is_the_same_function(name, space, padding):
    layer, shape = LAYERS[name]
    net = embedded(layer.double(), shape, space, padding)
    x = torch.randn(3, *shape, dtype=torch.float64)
    torch.testing.assert_close(net(x), layer(x), rtol=1e-12, atol=1e-12)
    matrix, g = net.matrix(), net.geometry
    padded = x if g.folded else net._padded(x)
    out = (padded.flatten(1) @ matrix.t()).unflatten(1, g.out_shape)
    bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (x.dim() - 2))
    torch.testing.assert_close(out + bias, layer(x), rtol=1e-12, atol=1e-12)
    assert wf.deviation(net, "local") == 0 and wf.deviation(net, "shared") < 1e-14


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("local", [True, False])
def test_write_and_read_are_adjoint_and_the_gram_is_theirs(name, folded, local):
    layer, shape = LAYERS[name]
    geometry = Geometry.of(layer, shape, folded)
    values = torch.randn(
        geometry.local_shape if local else geometry.kernel_shape, dtype=torch.float64
    )
    matrix = torch.randn(geometry.matrix_shape, dtype=torch.float64)
    forwards = (write(values, geometry, local=local) * matrix).sum()
    backwards = (values * read(matrix, geometry, local=local)).sum()
    torch.testing.assert_close(forwards, backwards, rtol=1e-12, atol=1e-12)
    if not local:
        image = write(values, geometry)
        products = (values.flatten(2) @ gram(geometry)).view_as(values)
        torch.testing.assert_close(read(image, geometry), products, rtol=1e-12, atol=1e-12)
        again = write(nearest_kernel(image, geometry), geometry)
        torch.testing.assert_close(again, image, rtol=1e-10, atol=1e-10)


def test_phi_takes_every_derivative():
    layer, shape = LAYERS["grouped"]
    geometry = Geometry.of(layer, shape, folded=True)
    kernel = layer.weight.detach().double().requires_grad_()

    def function(kernel):
        return write(kernel, geometry)

    assert torch.autograd.gradcheck(function, kernel, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda k: write(k, geometry).square(), kernel)
    stacked = torch.stack([kernel, 2 * kernel], dim=1)
    both = torch.func.vmap(function, in_dims=1)(stacked)
    torch.testing.assert_close(both[1], 2 * both[0])


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_in_kernels_it_is_the_network_and_its_gradient(execution):
    model = network()
    net = wf.embed(model.eval(), SHAPE, "shared", execution=execution)
    torch.testing.assert_close(net(X), model(X), rtol=1e-12, atol=1e-12)
    net(X).square().sum().backward()
    model(X).square().sum().backward()
    found = {
        n.partition("charts.0.")[2]: p.grad for n, p in net.named_parameters() if "charts" in n
    }
    assert set(found) == {
        "0.weight", "0.bias", "3.conv.weight", "3.conv.bias", "3.skip.weight", "3.skip.bias",
        "6.weight",
    }  # fmt: skip
    for name, grad in found.items():
        torch.testing.assert_close(grad, model.get_parameter(name).grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", ["dense", "local"])
@pytest.mark.parametrize("padding", ["fold", "keep"])
def test_the_adjoint_takes_its_gradient_to_that_of_the_network(space, padding):
    model = network().eval()
    net = wf.embed(model, SHAPE, space, padding=padding)
    torch.testing.assert_close(net(X), model(X), rtol=1e-12, atol=1e-12)
    net(X).square().sum().backward()
    model(X).square().sum().backward()
    chart = ConvolutionMatrix.over(net)
    pulled = chart.adjoint({name: p.grad for name, p in net.named_parameters()})
    assert len(pulled) == 7
    for name, grad in pulled.items():
        torch.testing.assert_close(grad, model.get_parameter(name).grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", ["dense", "local", "lowrank"])
def test_a_network_in_single_precision_and_in_train_mode(space):
    model = network().float().train()
    model[5].p = 0.0
    net = embedded(model, SHAPE, space)
    torch.testing.assert_close(net(X.float()), model(X.float()), rtol=1e-6, atol=1e-6)
    ours, theirs = net[1].running_mean, model[1].running_mean
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert net.training and model[0].weight.grad is None
    assert all(not isinstance(m, nn.Conv2d) for m in net.modules())


def test_phi_allocates_nothing_to_be_constructed():
    layer = nn.Conv2d(3, 64, 3, padding=1)
    with torch.device("meta"):
        dense = DenseConv(Geometry.of(layer, (3, 512, 512), folded=True), bias=True)
        assert dense.weight.numel() > 1e13  # no memory has it
    net = wf.Charted(nn.Sequential(dense), [ConvolutionMatrix({"0": dense})])
    assert sum(p.numel() for p in net.parameters()) == 3 * 9 * 64 + 64


def test_sizes_are_those_that_are_then_there():
    model = network()
    for padding in ("fold", "keep"):
        told = wf.embedding_size(model, SHAPE, rank=2, padding=padding)
        for space in ("dense", "local", "lowrank"):
            net = embedded(model, SHAPE, space, padding)
            assert told[space].bytes == sum(p.numel() * 8 for p in net.parameters()), space
    shared = wf.embed(model, SHAPE, "shared")
    assert told["shared"].bytes == sum(p.numel() * 8 for p in shared.parameters())
    assert told["dense"].training(10, 3) > told["dense"].training(10) > told["dense"].bytes
    assert "GB" in str(wf.embedding_size(nn.Conv2d(3, 64, 3), (3, 224, 224))["dense"])


def test_saved_and_loaded(tmp_path):
    for space in ("dense", "shared"):
        net = wf.embed(network(), SHAPE, space, where="6")
        wf.save(net, tmp_path / space)
        other = network()
        nn.init.zeros_(other[6].weight)
        there = wf.embed(other, SHAPE, where="6")
        loaded = wf.load(tmp_path / space, there)
        assert torch.equal(loaded.eval()(X), net.eval()(X))


def test_it_says_what_it_is():
    text = repr(wf.embed(network(), SHAPE))
    assert "(0): DenseConv(2x6x7 -> 4x3x4" in text and "padding=(1, 1) folded" in text
    assert "groups=2" in text and "weights=4,080" in text
    assert "kept" in repr(wf.embed(network(), SHAPE, padding="keep"))
    assert "LocalConv(4x2x3 -> 3x1x2" in repr(wf.embed(network(), SHAPE, "local"))


def test_what_froze_stays_frozen_and_the_rest_trains():
    model = network()
    model[0].weight.requires_grad_(False)
    net = wf.embed(model, SHAPE)
    assert not net[0].weight.requires_grad and net[0].bias.requires_grad
    assert net[6].weight.requires_grad


class Twice(nn.Module):
    """One convolution on two sizes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x):
        return self.conv(self.conv(x))


class Own(nn.Conv2d):
    """A forward of its own."""

    def forward(self, x):
        return -super().forward(x)


@pytest.mark.parametrize(
    ("net", "how", "error", "message"),
    [
        (Twice(), {}, ValueError, "'conv'.*several sizes"),
        (nn.Sequential(Own(2, 2, 3)), {}, ValueError, "'0'.*Own"),
        (nn.Sequential(nn.ConvTranspose2d(2, 2, 3)), {}, ValueError, "'0'.*transposed"),
        (nn.Sequential(nn.Flatten()), {}, ValueError, "no convolution"),
        (nn.Sequential(nn.Conv2d(3, 2, 3)), {}, ValueError, "input_shape"),
        (wf.subspace(network(), 3), {}, TypeError, "Charted"),
        (nn.Conv2d, {}, TypeError, "Conv2d"),
        (network(), {"space": "sparse"}, ValueError, "space='sparse'"),
        (network(), {"space": "lowrank"}, ValueError, "rank=None"),
        (network(), {"rank": 3}, ValueError, "rank=3"),
        (network(), {"space": "lowrank", "rank": 0}, ValueError, "rank=0"),
        (network(), {"padding": "drop"}, ValueError, "padding='drop'"),
        (network(), {"where": "7"}, ValueError, "where='7'"),
    ],
)
def test_what_is_refused(net, how, error, message):
    with pytest.raises(error, match=message):
        wf.embed(net, SHAPE, **how)


def test_weights_that_no_memory_holds_and_what_would_fit():
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 64, 3))
    with pytest.raises(MemoryError, match=r"space='dense'.*GB.*What fits: local") as error:
        wf.embed(net, (3, 512, 512))
    assert "shared" in str(error.value)


def test_an_input_of_another_size_names_the_right_one():
    with pytest.raises(ValueError, match=r"\(B, 2, 6, 7\)"):
        wf.embed(network(), SHAPE)(X[..., :6])


def test_a_convolution_of_a_geometry_is_that():
    for layer, shape in LAYERS.values():
        again = convolution_of(Geometry.of(layer, shape, True), layer.bias is not None)
        again.load_state_dict(layer.state_dict())
        x = torch.randn(2, *shape)
        torch.testing.assert_close(again(x), layer.float()(x))


def test_local_layers_start_as_convolutions_do():
    layer, shape = LAYERS["plain"]
    local = LocalConv(Geometry.of(layer, shape, False), bias=True)
    assert 0.9 < local.weight.abs().max() * 18**0.5 <= 1


@pytest.mark.parametrize("space", ["dense", "local", "lowrank"])
def test_lifted_in_place(space):
    model, net = network().eval(), embedded(network(), SHAPE, space).eval()
    with torch.no_grad():
        for p in (*net.parameters(), *model.parameters()):
            p.add_(torch.rand_like(p))
    before = [p.data_ptr() for p in net.parameters()]
    lift(net, model.state_dict())
    assert [p.data_ptr() for p in net.parameters()] == before
    torch.testing.assert_close(net(X), model(X), rtol=1e-12, atol=1e-12)


def test_weights_of_another_network_are_not_lifted():
    net, state = wf.embed(network(), SHAPE), network().state_dict()
    with pytest.raises(KeyError, match=r"3.skip.weight \(4, 3, 1, 1\) instead of \(4, 4, 1, 1\)"):
        lift(net, state | {"3.skip.weight": torch.zeros(4, 3, 1, 1)})
    with pytest.raises(KeyError, match=r"missing: 0\.bias"):
        lift(net, {n: t for n, t in state.items() if n != "0.bias"})
