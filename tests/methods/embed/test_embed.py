"""Convolutions as matrices: the function, the gradient, what is refused."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.methods.embed.chart import MatrixLayer
from weightfold.methods.embed.verb import fully_connected

X = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 3, 3, bias=False), nn.Flatten(), nn.Linear(3, 2),
    ).double()  # fmt: skip


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_it_is_the_same_function_and_trains_the_kernels(execution):
    model = network()
    net = wf.embed(model, X, execution=execution)
    torch.testing.assert_close(net(X), model(X), rtol=1e-12, atol=1e-12)
    net(X).square().sum().backward()
    model(X).square().sum().backward()
    found = {
        n.partition("charts.0.")[2]: p.grad for n, p in net.named_parameters() if "charts" in n
    }
    assert set(found) == {"0.weight", "0.bias", "3.weight"}
    for name, grad in found.items():
        torch.testing.assert_close(grad, model.get_parameter(name).grad, rtol=1e-9, atol=1e-9)


def test_deployed_it_is_fully_connected():
    plain = wf.embed(network(), X).deploy()
    assert isinstance(plain[0], MatrixLayer) and isinstance(plain[3], MatrixLayer)
    assert plain[0].weight.shape == (4 * 3 * 3, 2 * 6 * 6)
    torch.testing.assert_close(plain.eval()(X), network().eval()(X), rtol=1e-12, atol=1e-12)


def test_saved_and_loaded(tmp_path):
    net = wf.embed(network(), X, where="3")
    wf.save(net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", fully_connected(network(), X, where="3"))
    assert torch.equal(loaded.eval()(X), net.eval()(X))


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
    ("net", "error", "message"),
    [
        (Twice().double(), ValueError, "'conv'"),
        (nn.Sequential(Own(2, 2, 3)).double(), ValueError, "'0', a Own"),
        (nn.Sequential(nn.Flatten()), ValueError, "Conv2d"),
        (wf.subspace(network(), 3), TypeError, "Charted"),
        (nn.Conv2d, TypeError, "Conv2d"),
    ],
)
def test_what_is_refused(net, error, message):
    with pytest.raises(error, match=message):
        wf.embed(net, X)


def test_matrices_that_no_memory_holds():
    with torch.device("meta"):
        net, x = nn.Sequential(nn.Conv2d(3, 64, 3)), torch.zeros(1, 3, 1024, 1024)
    with pytest.raises(MemoryError):
        wf.embed(net, x)
    assert wf.embed(net, x, execution="chain")(x).shape == (1, 64, 1022, 1022)
