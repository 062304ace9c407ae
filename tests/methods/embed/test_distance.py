"""Distance from convolutions, the metric of a chart, and the rate that is fair."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold import Charted
from weightfold.methods.embed.chart import ConvolutionMatrix

SHAPE = (2, 6, 6)


def network(padding=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=padding), nn.Tanh(), nn.Conv2d(4, 3, 2), nn.Flatten(),
        nn.LazyLinear(2),
    )  # fmt: skip


def ready(padding=1):
    net = network(padding)
    net(torch.zeros(1, *SHAPE))
    return net.double()


def shaken(net, scale=0.1):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net


def dense_projection(net, space):
    """(I - Pi) by the matrix of the chart itself."""
    chart = ConvolutionMatrix.over(net, space).double()
    psi = dict(chart.named_parameters())
    sizes = [p.numel() for p in psi.values()]
    columns = []
    for unit in torch.eye(sum(sizes), dtype=torch.float64):
        parts = unit.split(sizes)
        given = {n: part.view(p.shape) for (n, p), part in zip(psi.items(), parts, strict=True)}
        image = torch.func.functional_call(chart, given, ())
        columns.append(torch.cat([t.flatten() for t in image.values()]))
    state = net.state_dict()
    theta = torch.cat([state[name].flatten() for name in image])
    phi = torch.stack(columns, dim=1)
    inside = phi @ torch.linalg.lstsq(phi, theta, driver="gelsd").solution
    return ((theta - inside).norm() / theta.norm()).item()


@pytest.mark.parametrize("space", ["shared", "local"])
@pytest.mark.parametrize("padding", ["fold", "keep"])
def test_deviation_is_the_distance_to_the_image(space, padding):
    net = shaken(wf.embed(ready(), SHAPE, padding=padding))
    found = wf.deviation(net, space)
    assert found == pytest.approx(dense_projection(net, space), rel=1e-9)
    assert found == pytest.approx(wf.deviation(net, ConvolutionMatrix.over(net, space)), rel=1e-9)


def test_deviation_of_a_local_network():
    net = wf.embed(ready(), SHAPE, "local")
    assert wf.deviation(net) == 0
    shaken(net)
    assert wf.deviation(net, "local") == 0
    assert wf.deviation(net) == pytest.approx(dense_projection(net, "shared"), rel=1e-9)


def test_deviation_of_a_low_rank_network():
    net = shaken(wf.embed(ready(), SHAPE, "lowrank", rank=1))
    dense = wf.embed(ready(), SHAPE)
    for low, layer in ((net[0], dense[0]), (net[2], dense[2])):
        with torch.no_grad():
            layer.weight.copy_(low.matrix())
            layer.bias.copy_(low.bias.repeat_interleave(len(layer.bias) // len(low.bias)))
    shares = [wf.deviation(n) for n in (net, dense)]
    assert 0 < shares[0] == pytest.approx(shares[1], rel=0.2)  # its biases count once


def test_deviation_from_any_linear_chart():
    net = nn.Linear(3, 1, bias=False)
    chart = wf.mask(net, {"weight": torch.tensor([[1, 0, 0]])}).charts[0]
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0, 2.0, 1.0]]))
    before = [p.clone() for p in chart.parameters()]
    assert wf.deviation(net, chart) == pytest.approx(5**0.5 / 3)
    assert all(torch.equal(a, b) for a, b in zip(before, chart.parameters(), strict=True))


def test_a_network_far_from_every_convolution():
    """The share of weights that no convolution reaches, as the paper says of its FCN."""
    net = wf.embed(nn.Sequential(nn.Conv2d(3, 64, 4, stride=2, padding=2)), (3, 32, 32),
                   padding="keep")  # fmt: skip
    net[0].reset_parameters()
    assert wf.deviation(net, "local") == pytest.approx((1 - 48 / 3888) ** 0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("net", "space", "error", "message"),
    [
        (nn.Linear(2, 2), "shared", ValueError, "embedded"),
        (wf.embed(ready(), SHAPE), "sharing", ValueError, "space='sharing'"),
        (wf.embed(ready(), SHAPE, "shared"), "shared", TypeError, "Charted"),
        (nn.ReLU(), wf.embed(ready(), SHAPE, "shared").charts[0], KeyError, "0.weight"),
    ],
)
def test_what_has_no_deviation(net, space, error, message):
    with pytest.raises(error, match=message):
        wf.deviation(net, space)


def test_the_metric_of_the_papers_network():
    """A CNN at rate eta moves at 289, 64 and 9 eta on its subspace."""
    net = wf.nets.build("vanilla_cnn", num_classes=10)
    with torch.device("meta"):
        embedded = wf.embed(net.to("meta"), (3, 32, 32), padding="keep")
    factors = wf.metric(ConvolutionMatrix.over(embedded)).factors
    assert [t.unique().tolist() for n, t in factors.items() if "weight" in n] == [[289], [64], [9]]
    assert [t.unique().tolist() for n, t in factors.items() if "bias" in n] == [[289], [64], [9]]
    assert list(wf.fair_learning_rate(embedded, 0.1).values()) == pytest.approx(
        [28.9, 28.9, 6.4, 6.4, 0.9, 0.9, 0.1, 0.1]
    )


@pytest.mark.parametrize("padding", ["fold", "keep"])
def test_the_metric_is_that_of_the_jacobian(padding):
    net = wf.embed(ready(), SHAPE, padding=padding)
    chart = ConvolutionMatrix.over(net).double()
    found = wf.metric(chart)
    theta = {n: torch.randn_like(t) for n, t in chart().items()}
    pulled = chart.adjoint(theta)
    products = found.product(theta)
    by_hand = torch.func.functional_call(chart, pulled, ())
    for name, tensor in products.items():
        torch.testing.assert_close(tensor, by_hand[name], rtol=1e-10, atol=1e-12)
    again = chart.adjoint(by_hand)
    for name, factor in found.factors.items():
        torch.testing.assert_close(again[name], factor * pulled[name], rtol=1e-10, atol=1e-12)
    other = wf.metric(wf.mask(nn.Linear(2, 1), {"weight": torch.tensor([[1, 0]])}).charts[0])
    assert other.factors is None
    kept = other.product({"weight": torch.tensor([[2.0, 3.0]])})
    assert kept["weight"].tolist() == [[2.0, 0.0]]


def test_the_fair_rate_moves_the_subspace_as_the_convolution_moves():
    """A step of both: projected on the image, the embedded network's is the convolutional one's."""
    model, lr = ready(padding=0), 0.01
    net = wf.embed(model, SHAPE)
    rates = wf.fair_learning_rate(net, lr)
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    for one in (model, net):
        one(x).square().sum().backward()
    with torch.no_grad():
        for name, p in net.named_parameters():
            p -= rates[name] * p.grad
        for p in model.parameters():
            p -= lr * p.grad
    chart = ConvolutionMatrix.over(net).double()
    chart.fit(net.state_dict())
    for name, psi in chart.named_parameters():
        torch.testing.assert_close(psi, model.get_parameter(name), rtol=1e-10, atol=1e-12)
    assert Charted(net, [chart]).deploy()[4].weight.equal(net[4].weight)
