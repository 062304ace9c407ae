"""Layers whose class, or a hook, computes something of its own run as what they are."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import weightfold as wf
from weightfold.export.domains import RoutedNet
from weightfold.folding import fold_batch_norm

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MIXED = ["a", "b", "a", "b", "b", "a"]


class ActNorm(nn.BatchNorm2d):
    """Batch norm with an activation that has a weight of its own, as timm's."""

    def __init__(self, channels, **options):
        super().__init__(channels, **options)
        self.act = nn.PReLU(channels)

    def forward(self, x):
        return self.act(super().forward(x))


class StandardConv(nn.Conv2d):
    """Weights standardised per filter, with a gain, as in normaliser-free nets."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, self.gain * weight, self.bias)


class Scaled(nn.Linear):
    """Three times a linear layer."""

    def forward(self, x):
        return 3 * super().forward(x)


class Replaced(nn.BatchNorm2d):
    """Re-assigns its running mean instead of changing it in place."""

    def forward(self, x):
        if self.training:
            self.running_mean = 0.5 * self.running_mean + 0.5 * x.detach().mean((0, 2, 3))
        return x - self.running_mean[:, None, None]


def network(conv=nn.Conv2d, norm=nn.BatchNorm2d, head=nn.Linear, hook=False):
    torch.manual_seed(0)
    net = nn.Sequential(
        conv(3, 8, 3), norm(8), nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(6, 4),
    )  # fmt: skip
    if hook:
        net[1].register_forward_hook(lambda module, inputs, output: 2 * output)
        net[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    return net.double()


CASES = {
    "norm": {"norm": ActNorm},
    "conv": {"conv": StandardConv},
    "head": {"head": Scaled},
    "all": {"conv": StandardConv, "norm": ActNorm, "head": Scaled},
    "hooks": {"hook": True},
    "replaced": {"norm": Replaced},
}


@pytest.fixture(params=[(case, part) for case in CASES for part in (0.3, 1.0)], ids=str)
def net(request):
    case, fraction = request.param
    model = network(**CASES[case])
    plan = wf.plan_sharing(model, "bottom", fraction, example_input=X)
    net = wf.share(model, {"a": 4, "b": 3}, plan)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net


def test_each_domain_is_its_deployed_network(net):
    net.eval()
    mixed = net(X, domain=MIXED)
    for domain in net.domains:
        plain = net.deploy(domain=domain)
        torch.testing.assert_close(net(X, domain=domain), plain(X), rtol=1e-12, atol=1e-12)
        mine = [i for i, d in enumerate(MIXED) if d == domain]
        classes = net.classes[domain]
        torch.testing.assert_close(mixed[mine, :classes], plain(X[mine]), rtol=1e-12, atol=1e-12)


def test_training_is_that_of_the_deployed_networks(net):
    """Gradients and buffers of a step on two domains at once, against each network alone."""
    net.train()
    plains = {d: net.deploy(domain=d).train() for d in net.domains}
    batches = {"a": X[:4], "b": X[1:5]}
    unused = {"allow_unused": True, "materialize_grads": True}
    found = net(batches)
    for domain, plain in plains.items():
        own = dict(net.sharing.domains[domain].named_parameters())
        theta = net.theta({"domain": domain})
        wanted = functional_call(
            plain, {n: t for n, t in theta.items() if n in dict(plain.named_parameters())},
            (batches[domain],),
        )  # fmt: skip
        torch.testing.assert_close(found[domain], wanted, rtol=1e-12, atol=1e-12)
        got = torch.autograd.grad(
            found[domain].square().sum(), own.values(), retain_graph=True, **unused
        )
        right = torch.autograd.grad(
            wanted.square().sum(), own.values(), retain_graph=True, **unused
        )
        torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-9)
    for domain, plain in plains.items():
        after = dict(net.deploy(domain=domain).named_buffers())
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(after[name], buffer, rtol=1e-12, atol=1e-12, msg=name)


def test_the_exported_graph_computes_the_same(net):
    net.eval()
    ids = torch.tensor([net.domains.index(d) for d in MIXED])
    found = RoutedNet(net)(X, ids)
    torch.testing.assert_close(found, net(X, domain=MIXED), rtol=1e-9, atol=1e-9)


def test_batch_norm_with_an_activation_is_not_folded_away():
    model = network(norm=ActNorm).eval()
    folded = fold_batch_norm(model)
    torch.testing.assert_close(folded(X), model(X), rtol=1e-12, atol=1e-12)
    assert type(folded[1]) is ActNorm


def test_a_tensor_without_rows_is_refused_by_name():
    class Tempered(nn.Conv2d):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.temperature = nn.Parameter(torch.ones(()))

    model = network(conv=Tempered)
    plan = wf.plan_sharing(model, "bottom", 0.3, example_input=X)
    with pytest.raises(ValueError, match=r"'temperature'.*'0'.*Tempered"):
        wf.share(model, {"a": 4}, plan)


def test_a_layer_keeps_the_mode_it_had():
    model = network()
    model[1].eval()
    plan = wf.plan_sharing(model, "bottom", 1.0, example_input=X)
    net = wf.share(model, {"a": 4, "b": 3}, plan)
    assert not net.model[1].training and net.model[0].training
