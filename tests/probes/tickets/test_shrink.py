import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import weightfold as wf
from weightfold.probes.tickets.shrink import Dead, dead_channels, shrink


def drawn(net, seed=0):
    """In float64 and eval mode, batch norms with statistics and affine values of all sorts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
                module.running_var.copy_(torch.rand(len(module.running_var), generator=generator))
    return net.double().eval()


def kill(layer, *channels):
    with torch.no_grad():
        layer.weight[list(channels)] = 0


def silence(layer, *channels):
    """Constant 0 behind a ReLU."""
    kill(layer, *channels)
    with torch.no_grad():
        layer.bias[list(channels)] = -1.0


def same(net, small, x):
    torch.testing.assert_close(small(x), net(x), rtol=0, atol=1e-12)


def x_of(*shape):
    return torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def mlp():
    torch.manual_seed(0)
    return drawn(
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    )


def test_a_dead_unit_goes_and_its_constant_into_the_next_bias():
    net = mlp()
    kill(net[0], 1, 3)
    small = shrink(net, x_of(6))
    assert [tuple(p.shape) for p in small.parameters()] == [
        (3, 6),
        (3,),
        (4, 3),
        (4,),
        (3, 4),
        (3,),
    ]
    assert (small[0].out_features, small[2].in_features) == (3, 3)
    same(net, small, x_of(6))
    assert net[0].out_features == 5 and len(net[0].weight) == 5
    assert dead_channels(net, x_of(6)) == [Dead("0", 2)]


def test_what_nobody_reads_goes_though_it_is_alive():
    net = mlp()
    with torch.no_grad():
        net[2].weight[:, 2] = 0
    small = shrink(net, x_of(6))
    assert small[0].out_features == 4
    same(net, small, x_of(6))


def test_death_spreads_both_ways():
    """A unit of the second layer that reads dead units alone dies with them, and so on."""
    net = mlp()
    kill(net[0], 0, 1)
    with torch.no_grad():
        net[2].weight[1, 2:] = 0
    small = shrink(net, x_of(6))
    assert (small[0].out_features, small[2].out_features) == (3, 3)
    same(net, small, x_of(6))


def test_a_layer_without_bias_gets_one_for_a_constant():
    torch.manual_seed(0)
    net = drawn(nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2, bias=False)))
    kill(net[0], 2)
    small = shrink(net, x_of(4))
    assert small[2].bias is not None
    same(net, small, x_of(4))


def test_at_least_one_channel_stays():
    net = mlp()
    kill(net[0], *range(5))
    small = shrink(net, x_of(6))
    assert small[0].out_features == 1
    same(net, small, x_of(6))
    kept = {dead.layer: dead for dead in dead_channels(net, x_of(6))}
    assert kept["0"] == Dead("0", 4, 1, "a layer has at least one channel")


def cnn(padding=1):
    torch.manual_seed(0)
    return drawn(
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(3, 2, padding=1),
            nn.Conv2d(6, 5, 3, padding=padding, bias=False),
            nn.BatchNorm2d(5),
            nn.ELU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.BatchNorm1d(5 * (4 if padding else 1)),
            nn.Linear(5 * (4 if padding else 1), 3),
        )
    )


def test_channels_die_through_batch_norm_pooling_and_flatten():
    net, x = cnn(), x_of(2, 8, 8)
    with torch.no_grad():
        net[1].bias[[1, 4]] = -3.0
        net[1].weight[[1, 4]] = 0.0
    kill(net[0], 1, 4)
    kill(net[4], 0, 2)
    small = shrink(net, x)
    assert (small[0].out_channels, small[1].num_features, small[4].in_channels) == (4, 4, 4)
    assert (small[4].out_channels, small[5].num_features, small[10].in_features) == (3, 3, 12)
    same(net, small, x)
    assert dead_channels(net, x) == [Dead("0", 2), Dead("4", 2)]


def test_a_constant_under_padding_stays_and_is_named():
    net, x = cnn(), x_of(2, 8, 8)
    net[3].count_include_pad = False
    with torch.no_grad():
        net[1].bias[3] = 2.0
        net[1].weight[3] = 0.0
    kill(net[0], 3)
    small = shrink(net, x)
    assert small[0].out_channels == 6
    same(net, small, x)
    reason = "a convolution with padding reads their constant, which is not 0"
    assert dead_channels(net, x) == [Dead("0", 0, 1, reason)]


def test_without_padding_the_constant_is_folded_unless_pooling_bent_it():
    net, x = cnn(padding=0), x_of(2, 8, 8)
    kill(net[0], 3)
    with torch.no_grad():
        net[1].bias[3] = 2.0
        net[1].weight[3] = 0.0
    # Average pooling with padding makes the constant smaller at the border.
    assert shrink(net, x)[0].out_channels == 6
    net[3].count_include_pad = False
    small = shrink(net, x)
    assert small[0].out_channels == 5 and small[4].bias is not None
    same(net, small, x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 4, 3, groups=2)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.fc(F.dropout(self.deep(x).mean((2, 3)), training=self.training))


def test_channels_of_sums_and_groups_stay_and_those_inside_a_branch_go():
    torch.manual_seed(0)
    net, x = drawn(Residual()), x_of(1, 6, 6)
    for layer in (net.stem, net.inner, net.outer, net.deep):
        silence(layer, 1)
    small = shrink(net, x)
    same(net, small, x)
    sizes = {n: len(p) for n, p in small.named_parameters() if n.endswith("weight")}
    assert sizes == {
        "stem.weight": 4, "inner.weight": 3, "outer.weight": 4, "deep.weight": 4, "fc.weight": 2,
    }  # fmt: skip
    assert dead_channels(net, x) == [
        Dead("stem", 0, 1, "add reads them"),
        Dead("inner", 1),
        Dead("outer", 0, 1, "add reads them"),
    ]
    assert type(small) is Residual


class Views(nn.Module):
    """Reshapes as users write them, tied layers, and a layer called twice."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(1, 3, 3)
        self.fc1 = nn.Linear(12, 4)
        self.fc2 = nn.Linear(4, 4)
        self.fc3 = nn.Linear(4, 4)
        if how == "tied":
            self.fc3.weight = self.fc2.weight

    def forward(self, x):
        x = F.relu(self.conv(x))
        x = {
            "size": lambda: x.view(x.size(0), -1),
            "shape": lambda: x.reshape(x.shape[0], -1),
            "fixed": lambda: x.view(-1, 12),
        }.get(self.how, lambda: torch.flatten(x, 1))()
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        x = F.relu(self.fc2(x)) if self.how == "twice" else x
        x = x @ self.fc3.weight if self.how == "read" else x
        return self.fc3(x)


@pytest.mark.parametrize(
    ("how", "conv", "fc1"),
    [
        ("size", 2, 3),
        ("shape", 2, 3),
        ("fixed", 3, 3),
        ("tied", 2, 4),
        ("twice", 2, 4),
        ("read", 2, 3),
    ],
)
def test_a_layer_is_cut_only_where_all_that_reads_it_follows(how, conv, fc1):
    torch.manual_seed(0)
    net, x = drawn(Views(how)), x_of(1, 4, 4)
    silence(net.conv, 1)
    silence(net.fc1, 2)
    small = shrink(net, x)
    same(net, small, x)
    assert (small.conv.out_channels, small.fc1.out_features) == (conv, fc1)


class InPlace(nn.Module):
    """One layer reads a tensor before, one after it was changed in place."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(2, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = self.fc1(x)
        before = self.fc2(x)
        return before + self.fc3(F.relu(x, inplace=True))


def test_each_layer_reads_what_is_there_when_it_runs():
    torch.manual_seed(0)
    net, x = drawn(InPlace()), x_of(2)
    silence(net.fc1, 1)
    with torch.no_grad():
        small = shrink(net, x)
        assert small.fc1.out_features == 3
        same(net, small, x)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x


def test_what_cannot_be_traced_stays_and_says_so():
    net = drawn(Branches())
    kill(net.fc, 0)
    assert shrink(net, x_of(2)).fc.out_features == 2
    (dead,) = dead_channels(net, x_of(2))
    assert (dead.layer, dead.kept) == ("fc", 1) and "cannot trace" in dead.reason
    with pytest.raises(TypeError, match="example is a tuple; give a tensor of inputs"):
        shrink(net, (3, 2))


def test_layers_with_hooks_or_another_forward_stay():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    torch.manual_seed(0)
    net = drawn(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Twice(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    silence(net[0], 1)
    silence(net[2], 1)
    assert shrink(net, x_of(3))[0].out_features == 4
    hooked = mlp()
    hooked[2].register_forward_hook(lambda module, args, out: out + 1)
    kill(hooked[0], 1)
    kill(hooked[2], 1)
    small = shrink(hooked, x_of(6))
    assert [len(p) for p in small.parameters()] == [len(p) for p in hooked.parameters()]
    same(hooked, small, x_of(6))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.5, 0.98), st.sampled_from(["mlp", "cnn", "cnn0"]))
def test_a_pruned_network_computes_the_same(seed, fraction, kind):
    net = {"mlp": mlp, "cnn": cnn, "cnn0": lambda: cnn(0)}[kind]()
    drawn(net, seed)
    generator = torch.Generator().manual_seed(seed)
    masks = {
        n: torch.rand(p.shape, generator=generator) > fraction
        for n, p in net.named_parameters()
        if p.dim() > 1
    }
    masked = wf.mask(net, masks)
    x = x_of(6) if kind == "mlp" else x_of(2, 8, 8)
    same(masked.deploy().eval(), shrink(masked, x), x)


class ReadsWidth(nn.Module):
    """Its forward reads the width of a layer, far from what that layer computes."""

    def __init__(self, read):
        super().__init__()
        self.a, self.b, self.read = nn.Linear(4, 8), nn.Linear(8, 3), read

    def forward(self, x):
        return self.b(torch.relu(self.a(x))) * self.read(self)


@pytest.mark.parametrize(
    "read",
    [
        lambda net: net.a.out_features,
        lambda net: len(net.a.weight),
        lambda net: net.b.weight.numel() / 24,
        lambda net: net.b.weight.abs().mean(),
        lambda net: torch.ones(8)[: net.a.out_features].sum(),
    ],
)
def test_a_forward_that_reads_a_width_is_refused_or_left_alone(read):
    torch.manual_seed(0)
    net = ReadsWidth(read)
    with torch.no_grad():
        net.a.weight[2:4] = 0
        net.a.bias[2:4] = 0
    x = torch.randn(5, 4)
    try:
        shrunk = wf.shrink(net, x)
    except ValueError as error:
        assert "ReadsWidth" in str(error) and " a (" in str(error)
    else:  # what torch.fx cannot trace stays as it is
        assert shrunk.a.out_features == 8 and torch.equal(shrunk(x), net(x))


def test_a_width_that_is_read_is_named():
    net = ReadsWidth(lambda net: net.a.out_features)
    with torch.no_grad():
        net.a.weight[2:4] = 0
    with pytest.raises(ValueError, match=r"ReadsWidth .* a \("):
        wf.shrink(net, torch.randn(5, 4))


def test_an_example_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"example of shape \(5, 3\)"):
        wf.shrink(ReadsWidth(lambda net: 1), torch.randn(5, 3))
    with pytest.raises(TypeError, match="model is the class ReadsWidth"):
        wf.shrink(ReadsWidth, torch.randn(5, 4))
