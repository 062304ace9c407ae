"""Where psi starts: torch's default, the plain layer's variance, or the plain layer itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import weightfold as wf


def small_net(bias=True):
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=bias),
        nn.ReLU(),
        nn.Conv2d(6, 6, (3, 2), groups=6, padding="same", padding_mode="circular", bias=bias),
        nn.ReLU(),
        nn.Conv2d(6, 3, 1, bias=bias),
        nn.Flatten(),
        nn.Linear(48, 7, bias=bias),
        nn.ReLU(),
        nn.Linear(7, 3),
    ).double()


def relative(a, b):
    return (torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)).item()


# --- "paper" -----------------------------------------------------------------------------------


def test_paper_init_is_torchs_default():
    """Weights and biases uniform within 1 / sqrt(fan in): its range and its standard deviation."""
    model = nn.Sequential(nn.Conv2d(16, 24, 7, groups=2), nn.Flatten(), nn.Linear(48, 64))
    net = wf.expand(model, conv="ck", linear="fc", where=["0", "2"], seed=0)
    factors = [*net.charts[0].chain("0"), *net.charts[0].chain("2")]
    assert len(factors) == 6
    for factor in factors:
        fan_in = factor.weight[0].numel()
        bound = 1 / math.sqrt(fan_in)
        for tensor in (factor.weight, factor.bias):
            size = tensor.numel()
            assert tensor.abs().max() <= bound
            assert tensor.abs().max() >= bound * (1 - 20 / size)
            # The sample variance of a uniform variable has relative spread sqrt(0.8 / size).
            spread = math.sqrt(0.8 / size)
            assert abs(tensor.square().mean() * 3 / bound**2 - 1) < 5 * spread
            assert abs(tensor.mean()) < 5 * bound / math.sqrt(3 * size)


def psi(seed):
    net = wf.expand(small_net(), linear="fc", seed=seed)
    return torch.cat([p.detach().flatten() for p in net.charts.parameters()])


def test_a_seed_decides_psi():
    assert torch.equal(psi(1), psi(1))
    assert not torch.equal(psi(1), psi(2))
    torch.manual_seed(5)
    first = psi(None)
    assert not torch.equal(first, psi(None))
    torch.manual_seed(5)
    assert torch.equal(first, psi(None))


def test_a_seed_leaves_the_global_generators_alone(monkeypatch):
    def refuse(seed):
        raise AssertionError("the generators of the GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    model = small_net()
    before = torch.get_rng_state()
    wf.expand(model, linear="fc", seed=1)
    assert torch.equal(torch.get_rng_state(), before)


# --- "variance" --------------------------------------------------------------------------------


@pytest.mark.parametrize("conv", ["cl", "ck"])
@pytest.mark.parametrize("rate", [0.5, 1, 4])
def test_variance_init_gives_the_plain_layers_std(conv, rate):
    model = nn.Sequential(
        nn.Conv2d(8, 12, 7, groups=2), nn.Conv2d(12, 6, 3), nn.Flatten(), nn.Linear(60, 30)
    ).double()
    chosen = ["0", "1", "3"]
    net = wf.expand(model, rate, conv, linear="fc", where=chosen, init="variance", seed=0)
    plain = net.deploy()
    for path in chosen:
        a, b = plain.get_submodule(path), model.get_submodule(path)
        assert math.isclose(a.weight.std().item(), b.weight.std().item(), rel_tol=1e-12)
        assert not torch.allclose(a.weight, b.weight)
        torch.testing.assert_close(a.bias, b.bias, rtol=1e-14, atol=0)
        assert all(not f.bias.any() for f in list(net.charts[0].chain(path))[:-1])


# --- "preserve" --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rate", [1, 1.5, 3])
@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_preserve_keeps_the_function(bias, rate, execution):
    model = small_net(bias)
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    net = wf.expand(
        model, rate, linear="fc", where="*", init="preserve", execution=execution, seed=0
    )
    assert len(net.charts[0].config()["layers"]) == 5
    assert relative(net(x), model(x)) <= 1e-10
    residuals = net.charts[0].residuals(model.state_dict())
    assert residuals.keys() == {n for n, _ in model.named_parameters()}
    assert max(residuals.values()) <= 1e-10


@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(2, 5),
    st.sampled_from((0.25, 0.5, 1, 1.3, 4)),
)
@settings(derandomize=True, deadline=None, database=None, max_examples=40)
def test_preserve_is_exact_for_fc_where_no_width_is_below_the_rank(m, n, depth, rate):
    torch.manual_seed(0)
    inner = [int(rate * c + 1e-9) for c in (m, *[n] * (depth - 2))]
    if min(inner) < min(m, n):
        return
    model = nn.Sequential(nn.Linear(m, n), nn.Linear(n, 2)).double()
    net = wf.expand(model, rate, None, linear="fc", linear_depth=depth, init="preserve", seed=0)
    assert relative(net.deploy()[0].weight, model[0].weight) <= 1e-10
    assert relative(net.deploy()[0].bias, model[0].bias) <= 1e-10


def test_preserve_takes_a_zero_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).double()
    nn.init.zeros_(model[0].weight)
    plain = wf.expand(model, init="preserve", seed=0).deploy()
    assert plain[0].weight.abs().max() <= 1e-12
    torch.testing.assert_close(plain[0].bias, model[0].bias, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (nn.Conv2d(8, 8, 3, groups=2), {"rate": 0.5}),
        (nn.Conv2d(8, 6, 5), {"rate": 0.25, "conv": "cl"}),
        (nn.Conv2d(3, 4, 7), {"rate": 0.5, "conv": "ck"}),
        (nn.Linear(12, 9), {"rate": 0.5, "linear": "fc"}),
    ],
)
def test_preserve_reports_the_residual_where_it_is_not_exact(layer, options):
    model = nn.Sequential(layer).double()
    net = wf.expand(model, where="0", init="preserve", seed=0, **options)
    residuals = net.charts[0].residuals(model.state_dict())
    plain = net.deploy()
    assert residuals["0.weight"] > 0.01
    expected = relative(plain[0].weight.flatten(), layer.weight.flatten())
    assert math.isclose(residuals["0.weight"], expected, rel_tol=1e-9)
    assert residuals["0.weight"] < 1, "worse than a layer of zeros"
    assert relative(plain[0].bias, layer.bias) <= 1e-10


@pytest.mark.parametrize(("m", "n", "rate", "depth"), [(12, 9, 0.5, 3), (20, 6, 0.25, 2)])
def test_preserve_of_fc_cannot_beat_the_best_matrix_of_that_rank(m, n, rate, depth):
    """No product through width w is nearer than the truncated SVD (Eckart and Young 1936)."""
    model = nn.Sequential(nn.Linear(m, n)).double()
    options = {"linear": "fc", "linear_depth": depth, "where": "0", "init": "preserve"}
    net = wf.expand(model, rate, None, seed=0, **options)
    width = min(net.charts[0].config()["layers"]["0"]["channels"][1:-1])
    assert width < min(m, n)
    values = torch.linalg.svdvals(model[0].weight)
    bound = (values[width:].square().sum() / values.square().sum()).sqrt().item()
    residual = net.charts[0].residuals(model.state_dict())["0.weight"]
    assert bound * (1 - 1e-9) <= residual < 1


def test_preserve_in_float32_is_as_exact_as_float32_is():
    model = small_net().float()
    x = torch.randn(3, 4, 8, 8)
    net = wf.expand(model, linear="fc", init="preserve", seed=0)
    assert relative(net(x), model(x)) < 1e-5


def test_a_default_device_changes_nothing():
    model = small_net()
    net = wf.expand(model, seed=0)
    with torch.device("meta"):
        other = wf.expand(model, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
