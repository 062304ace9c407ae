import pytest
import torch
from torch import nn

from weightfold.data import Dataset, Examples
from weightfold.probes.layers import batch_norm
from weightfold.probes.layers.batch_norm import recalibrate

EPS = torch.finfo(torch.float64).eps


class Double(nn.Module):
    def forward(self, x):
        return x.double()


def made(count: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(count, 2, 3, 3, generator=generator)
    return Dataset(
        "data", Examples(x, torch.arange(count) % 2), Examples(x[:2], torch.arange(2)), 2
    )


def network() -> nn.Sequential:
    """Statistics of the inputs, then of a convolution of what the first norm gives."""
    torch.manual_seed(0)
    net = nn.Sequential(
        Double(), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
    )
    return net.double()


def normed(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + norm.eps).sqrt()


def test_one_batch_gives_the_exact_mean_and_variance():
    samples, net = made(40), network()
    recalibrate(net, samples)
    x = samples.train.inputs.double()
    for norm, values in ((net[1], x), (net[4], net[3](normed(x, net[1])))):
        # A sum of m terms is off by at most m eps times the sum of their magnitudes; squares twice.
        terms = values.numel() / values.shape[1]
        bound = 4 * terms * EPS * values.detach().square().max().item()
        for found, exact in (
            (norm.running_mean, values.mean((0, 2, 3))),
            (norm.running_var, values.var((0, 2, 3))),
        ):
            torch.testing.assert_close(found, exact.detach(), rtol=0, atol=bound)


def test_batches_count_equally_and_no_class_fills_one(monkeypatch):
    monkeypatch.setattr(batch_norm, "BATCH", 10)
    samples, net = made(30), network()
    sorted_by_class = Dataset(
        "data", samples.train.select(samples.train.targets.argsort()), samples.test, 2
    )
    recalibrate(net, sorted_by_class)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    pieces = sorted_by_class.train.inputs.double()[order].split(10)
    bound = 4 * 270 * EPS * samples.train.inputs.square().max().item()
    for found, exact in (
        (net[1].running_mean, torch.stack([x.mean((0, 2, 3)) for x in pieces]).mean(0)),
        (net[1].running_var, torch.stack([x.var((0, 2, 3)) for x in pieces]).mean(0)),
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=bound)
    assert all(
        len(sorted_by_class.train.targets[order][10 * i : 10 * i + 10].unique()) == 2
        for i in range(3)
    )


@pytest.mark.parametrize("training", [True, False])
def test_only_statistics_change(training):
    net = network().train(training)
    net[1].eval()
    net[4].momentum = 0.3
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    recalibrate(net, made(20))
    changed = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {
        f"{i}.{name}"
        for i in (1, 4)
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert [m.training for m in net] == [training, False, training, training, training]
    assert net[4].momentum == 0.3
