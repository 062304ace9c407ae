"""Factors of a layer as section 3 of ExpandNets has them, and the chain as a module."""

import math

import pytest
import torch
from torch import nn

import weightfold as wf


def chain_of(layer, **options):
    net = wf.expand(nn.Sequential(layer), where="0", **options)
    return net.charts[0].chain("0")


def kernels_of(chain):
    return [f.kernel_size for f in chain]


def widths_of(chain):
    return [chain[0].in_channels, *(f.out_channels for f in chain)]


def test_cl_is_1_k_1_with_padding_first_and_stride_in_the_middle():
    layer = nn.Conv2d(3, 8, (3, 4), stride=(2, 3), padding=(1, 2), dilation=(1, 2))
    chain = chain_of(layer, rate=2)
    assert kernels_of(chain) == [(1, 1), (3, 4), (1, 1)]
    assert widths_of(chain) == [3, 6, 16, 8]
    assert [f.stride for f in chain] == [(1, 1), (2, 3), (1, 1)]
    assert [f.padding for f in chain] == [(1, 2), (0, 0), (0, 0)]
    assert chain[1].dilation == (1, 2)


def test_ck_is_threes_with_padding_first_and_stride_last():
    chain = chain_of(nn.Conv2d(3, 8, 9, stride=2, padding=4), conv="ck")
    assert kernels_of(chain) == [(3, 3)] * 4
    assert widths_of(chain) == [3, 12, 32, 32, 8]
    assert [f.stride[0] for f in chain] == [1, 1, 1, 2]
    assert [f.padding[0] for f in chain] == [4, 0, 0, 0]


@pytest.mark.parametrize(
    ("kernel", "channels", "factors"),
    [
        ((5, 5), [4, 8, 6], [(3, 3)] * 2),
        ((7, 7), [4, 8, 12, 6], [(3, 3)] * 3),
        ((11, 11), [4, 8, 12, 12, 12, 6], [(3, 3)] * 5),
        ((3, 7), [4, 8, 12, 6], [(3, 3), (1, 3), (1, 3)]),
        ((1, 5), [4, 8, 6], [(1, 3)] * 2),
        ((5, 9), [4, 8, 12, 12, 6], [(3, 3)] * 2 + [(1, 3)] * 2),
        ((3, 3), [4, 8, 12, 6], [(1, 1), (3, 3), (1, 1)]),  # falls to CL
        ((1, 3), [4, 8, 12, 6], [(1, 1), (1, 3), (1, 1)]),
    ],
)
def test_ck_factors(kernel, channels, factors):
    chain = chain_of(nn.Conv2d(4, 6, kernel), conv="ck", rate=2)
    assert kernels_of(chain) == factors
    assert widths_of(chain) == channels


@pytest.mark.parametrize(
    ("rate", "inner"),
    [(0.25, (2, 4)), (0.5, (5, 8)), (0.7, (7, 11)), (1, (10, 16)), (1.25, (12, 20)), (4, (40, 64))],
)
def test_inner_widths_are_the_integer_part_of_rate_times_channels(rate, inner):
    assert tuple(widths_of(chain_of(nn.Conv2d(10, 16, 3), rate=rate))[1:-1]) == inner


def test_groups_expand_inside_each_group():
    chain = chain_of(nn.Conv2d(6, 9, 5, groups=3), rate=1.5, conv="ck")
    assert widths_of(chain) == [6, 9, 9]
    assert [f.groups for f in chain] == [3, 3]
    depthwise = chain_of(nn.Conv2d(5, 10, 3, groups=5), rate=4)
    assert widths_of(depthwise) == [5, 20, 40, 10]
    assert [tuple(f.weight.shape[:2]) for f in depthwise] == [(20, 1), (40, 4), (10, 8)]


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_fc_has_linear_depth_layers(depth):
    chain = chain_of(nn.Linear(4, 6), conv=None, linear="fc", linear_depth=depth, rate=2)
    assert [f.in_features for f in chain] == [4, 8, 12, 12, 12][:depth]
    assert chain[-1].out_features == 6


@pytest.mark.parametrize("bias", [True, False])
def test_factors_have_a_bias_exactly_when_the_layer_has_one(bias):
    for layer in (nn.Conv2d(3, 4, 5, bias=bias), nn.Linear(3, 4, bias=bias)):
        chain = chain_of(layer, conv="ck", linear="fc")
        assert all((f.bias is not None) is bias for f in chain)


def test_first_m_keeps_the_channels_of_the_networks_first_convolution_only():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    both = wf.expand(model, first="m").charts[0]
    assert widths_of(both.chain("0")) == [3, 3, 16, 4]
    assert widths_of(both.chain("1")) == [4, 16, 20, 5]
    second = wf.expand(model, first="m", where="1").charts[0]
    assert widths_of(second.chain("1")) == [4, 16, 20, 5]


def test_dtype_device_and_frozen_state_are_the_layers():
    layer = nn.Conv2d(3, 4, 3, dtype=torch.float64, device="meta").requires_grad_(False)
    for factor in chain_of(layer):
        assert factor.weight.dtype == torch.float64
        assert factor.weight.is_meta
        assert not factor.weight.requires_grad


def test_fuse_gives_the_plain_layer_exactly():
    layer = nn.Conv2d(4, 6, 5, stride=2, padding=2, groups=2, padding_mode="circular").double()
    chain = chain_of(layer, conv="ck", rate=2).eval()
    plain = chain.fuse()
    assert type(plain) is nn.Conv2d
    assert not plain.training
    assert plain.state_dict().keys() == layer.state_dict().keys()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    difference = (plain(x) - chain(x)).abs().max()
    assert difference <= 1e-12 * chain(x).abs().max()
    assert all(p.is_leaf and p.requires_grad for p in plain.parameters())
    assert chain.plain.weight is None, "fuse fills a copy"


def test_fuse_of_a_linear_without_bias():
    chain = wf.Chain([nn.Linear(3, 7, False), nn.Linear(7, 2, False)], nn.Linear(3, 2, False))
    plain = chain.double().fuse()
    assert plain.bias is None
    torch.testing.assert_close(plain.weight, chain[1].weight @ chain[0].weight, rtol=1e-14, atol=0)


def test_nonlinear_chain_does_not_fuse():
    layers = [nn.Linear(3, 7), nn.Linear(7, 2)]
    with pytest.raises(RuntimeError, match="linear twin"):
        wf.Chain(layers, nn.Linear(3, 2), nonlinear=True).fuse()


@pytest.mark.parametrize("padding", [1, (0, 1), "same"])
def test_padding_after_the_first_factor_is_refused(padding):
    plain = nn.Conv2d(3, 5, 3, padding=1)
    factors = [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, padding=padding)]
    with pytest.raises(ValueError, match=r"factor 1 .*padding=.*only the first factor may"):
        wf.Chain(factors, plain)
    wf.Chain([nn.Conv2d(3, 4, 1, padding=1), nn.Conv2d(4, 5, 3, padding="valid")], plain)


def test_a_stride_before_the_last_kernel_is_refused():
    plain = nn.Conv2d(3, 5, 3, stride=2)
    factors = [nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(4, 5, 3)]
    with pytest.raises(ValueError, match=r"factor 0 .*stride=\(2, 2\)"):
        wf.Chain(factors, plain)
    factors = [nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 5, 1)]
    wf.Chain(factors, plain)


@pytest.mark.parametrize(
    ("m", "n", "groups", "first"),
    [(3, 8, 1, "rm"), (3, 7, 1, "m"), (6, 14, 2, "rm"), (49, 3, 1, "rm")],
)
def test_least_rate_named_in_the_error_is_enough(m, n, groups, first):
    layer = nn.Conv2d(m, n, 3, groups=groups)
    with pytest.raises(ValueError, match=r"rate=0\.01 .*use rate >= ") as caught:
        chain_of(layer, rate=0.01, first=first)
    least = float(str(caught.value).rpartition(">= ")[2])
    assert min(widths_of(chain_of(layer, rate=least, first=first))) >= groups
    with pytest.raises(ValueError, match="use rate >="):
        chain_of(layer, rate=0.99 * least, first=first)
    assert math.isclose(least, max(groups / n, 0 if first == "m" else groups / m), rel_tol=1e-2)


def test_folded_depthwise_kernels_keep_the_memory_format():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU())
    net = wf.expand(model, rate=2, seed=0)
    weight = net.theta()["0.weight"]
    assert weight.stride() == model.get_parameter("0.weight").stride()
    assert net(torch.randn(2, 8, 5, 5)).is_contiguous()
