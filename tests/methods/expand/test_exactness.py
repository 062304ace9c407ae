"""Fold, chain execution and a chain of plain functional layers are one function, in float64."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import weightfold as wf

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
RUN = {0: F.linear, 1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
RATES = (0.25, 0.5, 0.75, 1, 1.5, 2, 2.7, 4)
QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def close(a, b, tolerance=1e-12):
    assert a.shape == b.shape
    worst, scale = (a - b).abs().max().item(), b.abs().max().item()
    assert worst <= tolerance * scale, f"max|a - b| = {worst / max(scale, 1e-300):.2e} max|b|"


@st.composite
def convolutions(draw, kind, kernels, mode):
    """A convolution in float64, an input, the rate and `first`."""
    torch.manual_seed(0)
    kernel = draw(kernels)
    dims = len(kernel)

    def axes(values):
        return st.tuples(*[values] * dims)

    rate = draw(st.sampled_from(RATES))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    least = math.ceil(1 / rate)
    m = groups * draw(st.integers(least, least + 2))
    n = groups * draw(st.integers(least, least + 2))
    if draw(st.booleans()) and least == 1:  # depthwise, with a multiplier
        groups, n = m, m * draw(st.integers(1, 2))
    dilation = draw(axes(st.integers(1, 2)))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [max(s, 2) + draw(st.integers(0, 3)) for s in span]
    padding = draw(
        st.sampled_from(("same", "valid"))
        | st.integers(0, min(3, *(s - 1 for s in size)) if dims > 1 else min(3, size[0] - 1))
        | st.tuples(*[st.integers(0, min(3, s - 1)) for s in size])
    )
    stride = 1 if padding == "same" else draw(st.integers(1, 3) | axes(st.integers(1, 3)))
    layer = CONV[dims](
        m,
        n,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
        dtype=torch.float64,
    )
    x = torch.randn(2, m, *size, dtype=torch.float64)
    return layer, x, {"rate": rate, "conv": kind, "first": draw(st.sampled_from(("rm", "m")))}


CL_KERNELS = {
    1: st.tuples(st.integers(2, 7)),
    2: st.tuples(st.integers(1, 5), st.integers(2, 6)),
    3: st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3)),
}
CK_KERNELS = {
    1: st.sampled_from([(5,), (7,), (9,), (11,)]),
    2: st.sampled_from([(3, 7), (1, 5), (5, 9), (5, 5), (7, 7), (9, 9), (11, 11), (3, 3), (7, 1)]),
    3: st.sampled_from([(5, 3, 1), (3, 5, 5), (1, 1, 7)]),
}


def by_hand(layer, x, factors):
    """The chain as section 3 has it, with torch.nn.functional: pad once, stride in one place."""
    dims = layer.weight.dim() - 2
    kernels = [tuple(w.shape[2:]) for w, _ in factors]
    cl = len(kernels) == 3 and math.prod(kernels[0]) == 1 and math.prod(kernels[2]) == 1
    strided = 1 if cl else len(kernels) - 1
    sides = []
    for axis in reversed(range(dims)):
        if layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        elif layer.padding != "valid":
            sides += [layer.padding[axis]] * 2
        else:
            sides += [0, 0]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    if any(sides):
        x = F.pad(x, sides, mode=mode)
    for index, (weight, bias) in enumerate(factors):
        x = RUN[dims](
            x,
            weight,
            bias,
            stride=layer.stride if index == strided else 1,
            dilation=layer.dilation,
            groups=layer.groups,
        )
    return x


def outcome(run, x, tensors):
    """Output, and the gradient of a fixed projection of it, for x and every tensor."""
    out = run(x)
    generator = torch.Generator().manual_seed(1)
    direction = torch.rand(out.shape, generator=generator, dtype=out.dtype) + 0.5
    return out, torch.autograd.grad((out * direction).sum(), [x, *tensors])


def check(layer, x, by_hand, **options):
    """Net in fold and in chain execution against `by_hand(layer, x, factors)`."""
    x.requires_grad_()
    net = wf.expand(nn.Sequential(layer), where="0", execution="fold", seed=3, **options)
    same = wf.expand(nn.Sequential(layer), where="0", execution="chain", seed=3, **options)
    psi = [list(n.charts[0].parameters()) for n in (net, same)]
    assert sum(map(len, psi)) == 2 * len(psi[0]) == 2 * len(list(net.parameters()))
    factors = [(f.weight, f.bias) for f in net.charts[0].chain("0")]
    assert all((bias is None) == (layer.bias is None) for _, bias in factors)

    out, gradients = outcome(lambda x: by_hand(layer, x, factors), x, psi[0])
    assert out.shape == layer(x).shape
    for run, tensors in ((net, psi[0]), (same, psi[1])):
        got, got_gradients = outcome(run, x, tensors)
        close(got, out)
        for a, b in zip(got_gradients, gradients, strict=True):
            close(a, b)
    close(net.deploy()(x), out)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@given(st.data())
@settings(QUICK, max_examples=8)
def test_cl(dims, mode, data):
    layer, x, options = data.draw(convolutions("cl", CL_KERNELS[dims], mode))
    check(layer, x, by_hand, **options)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@given(st.data())
@settings(QUICK, max_examples=8)
def test_ck(dims, mode, data):
    layer, x, options = data.draw(convolutions("ck", CK_KERNELS[dims], mode))
    check(layer, x, by_hand, **options)


@pytest.mark.parametrize("kernel", [(5, 5), (7, 7), (9, 9), (11, 11), (3, 7), (1, 5), (5, 9)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_ck_of_every_kernel(kernel, groups):
    """Padded as usual, stride 2, biases, r = 2.5."""
    pads = tuple((k - 1) // 2 for k in kernel)
    layer = nn.Conv2d(4, 8, kernel, stride=2, padding=pads, groups=groups).double()
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    check(layer, x, by_hand, rate=2.5, conv="ck")


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from(RATES),
    st.integers(2, 5),
    st.sampled_from(((2,), (), (2, 3))),
)
@settings(QUICK, max_examples=30)
def test_fc(m, n, bias, rate, depth, batch):
    least = math.ceil(1 / rate)
    layer = nn.Linear(m * least, n * least, bias, dtype=torch.float64)
    x = torch.randn(*batch, m * least, dtype=torch.float64)

    def chain(layer, x, factors):
        assert len(factors) == depth
        for weight, bias in factors:
            x = F.linear(x, weight, bias)
        return x

    check(layer, x, chain, rate=rate, conv=None, linear="fc", linear_depth=depth)


@pytest.mark.parametrize("kernel", [(2, 2), (4, 3), (5, 6)])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_same_padding_of_even_kernels_is_torchs(kernel, mode):
    """Preserving the weights preserves the layer itself, whose asymmetric padding is torch's."""
    layer = nn.Conv2d(2, 3, kernel, padding="same", dilation=(2, 1), padding_mode=mode).double()
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    for execution in ("fold", "chain"):
        net = wf.expand(nn.Sequential(layer), rate=2, init="preserve", execution=execution)
        close(net(x), layer(x), 1e-10)


def test_hundred_steps_of_sgd_in_fold_and_chain_end_alike():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 5, stride=2, padding=2, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    ).double()
    x = torch.randn(12, 2, 6, 6, dtype=torch.float64)
    y = torch.randint(0, 3, (12,))
    nets = [
        wf.expand(model, rate=2, conv="ck", linear="fc", execution=e, init="variance", seed=0)
        for e in ("fold", "chain")
    ]
    losses = []
    for net in nets:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
        for _ in range(100):
            loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 0.5 * math.log(3), "did not train, so it proves nothing"
    fold, chain = nets
    assert len(list(fold.parameters())) == len(list(chain.parameters())) == 22
    for (name, a), (other, b) in zip(
        fold.state_dict().items(), chain.state_dict().items(), strict=True
    ):
        assert name == other
        if a.is_floating_point():
            assert (a - b).abs().max() <= 1e-10
    theta = [net.theta() for net in nets]
    assert theta[0].keys() == {f"{i}.{t}" for i in (0, 3, 7) for t in ("weight", "bias")}
    for name in theta[0]:
        assert (theta[0][name] - theta[1][name]).abs().max() <= 1e-10
