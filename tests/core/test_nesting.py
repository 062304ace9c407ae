"""Charts of charts: verbs take what verbs give, with nothing written for the pair."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import weightfold as wf
from weightfold import Charted


def outer(cases, case, verb: str) -> Charted:
    """A second level over the coordinates of the case's own chart, moved."""
    if verb == "subspace":
        net = wf.subspace(case.net, dim=5, where="charts.*", seed=3)
    else:
        psi = {f"charts.0.{n}": p for n, p in case.net.charts[0].named_parameters()}
        net = wf.mask(case.net, {n: torch.rand(p.shape) < 0.6 for n, p in psi.items()})
    cases.shake(net)
    return net.eval()


@pytest.fixture(params=["subspace", "mask"])
def verb(request):
    return request.param


def test_two_levels_are_the_composed_map(cases, case, verb):
    """theta = T_inner(T_outer(psi)), by the inner chart called on what the outer returns."""
    net = outer(cases, case, verb)
    inner = {n.removeprefix("charts.0."): t for n, t in net.charts[0](**case.at).items()}
    chart = case.net.charts[0]
    expected = functional_call(chart, inner, (), case.at)
    found = net.theta(case.at)
    assert set(found) == set(expected)
    assert all(torch.equal(found[n], t) for n, t in expected.items())


def test_two_levels_deploy_to_the_plain_class(cases, case, verb):
    net = outer(cases, case, verb)
    plain = net.deploy(case.at)
    assert type(plain) is type(case.model)
    assert list(plain.state_dict()) == list(case.model.state_dict())
    torch.testing.assert_close(plain(case.x), case.run(net), rtol=1e-12, atol=1e-12)
    assert net.verify(case.x, at=case.at).worst < 1e-12


def test_gradients_of_two_levels_are_the_chain_rule(cases, case, verb):
    net = outer(cases, case, verb)
    case.run(net).square().mean().backward()
    one = net.lower(case.at)
    one.eval()
    case.run(one).square().mean().backward()
    theta = net.charts[0](**case.at)
    names = [n for n, t in theta.items() if one.get_parameter(n).grad is not None]
    net_grads = cases.gradients(net)
    net.zero_grad()
    torch.autograd.backward([theta[n] for n in names], [one.get_parameter(n).grad for n in names])
    pulled = cases.gradients(net)
    assert cases.gap({n: net_grads[n] for n in pulled}, pulled) <= 1e-12


def test_construction_leaves_the_inner_net_alone(cases, case, verb):
    before = {n: t.clone() for n, t in case.net.state_dict().items()}
    net = outer(cases, case, verb)
    case.run(net).sum().backward()
    assert all(torch.equal(t, before[n]) for n, t in case.net.state_dict().items())
    assert list(before) == list(case.net.state_dict())
    mine = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    theirs = {t.untyped_storage().data_ptr() for t in (*case.net.parameters(), *case.net.buffers())}
    assert not mine & theirs


def test_saved_and_copied(cases, case, verb, tmp_path):
    net = outer(cases, case, verb)
    wf.save(net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", cases.make(case.kind, seed=7).model)
    assert torch.equal(case.run(loaded.eval()), case.run(net))
    assert torch.equal(case.run(copy.deepcopy(net)), case.run(net))


def test_constants_of_every_level_stay_at_home(cases, case):
    net = outer(cases, case, "subspace")
    constants = ("packed", "table", "hadamard")
    mine = {"charts.0.theta0", "charts.0.saved_seed"}
    mine |= {f"charts.0.projection.{n}" for n in constants}
    inner = {f"model.{n}" for n in case.net._ddp_params_and_buffers_to_ignore}
    assert set(net._ddp_params_and_buffers_to_ignore) == mine | inner


def test_fit_goes_through_both_levels(cases):
    model, x = cases.Conv().double().eval(), torch.randn(2, 2, 6, 6).double()
    net = wf.mask(wf.expand(model, rate=2, seed=0), {"charts.0.conv1.0.weight":
                                                      torch.ones(4, 2, 1, 1)}).eval()  # fmt: skip
    residuals = net.fit(model.state_dict())
    assert max(residuals.values()) < 1e-9
    torch.testing.assert_close(net(x), model(x), rtol=1e-8, atol=1e-8)


def test_at_reaches_every_level(cases):
    below = cases.make("sharing").net
    x = torch.randn(2, 2, 6, 6).double()
    outs = {d: below.eval()(x, at={"domain": d}) for d in ("birds", "cars")}
    assert not torch.allclose(outs["birds"], outs["cars"])
    top = wf.subspace(below, dim=4, where="domains.cars.*").eval()
    for domain, out in outs.items():
        torch.testing.assert_close(top(x, at={"domain": domain}), out)
    cases.shake(top.charts)
    torch.testing.assert_close(top(x, at={"domain": "birds"}), outs["birds"])
    assert not torch.allclose(top(x, at={"domain": "cars"}), outs["cars"])
    torch.testing.assert_close(top.deploy({"domain": "cars"})(x), top(x, at={"domain": "cars"}))
    with pytest.raises(KeyError, match="domains are"):
        top(x, at={"domain": "boats"})


def test_short_names_reach_the_coordinates(cases):
    net = wf.expand(cases.Conv(), rate=2, seed=0)
    whole = wf.subspace(net, dim=3, where="conv1.*")
    assert list(whole.charts[0].shapes) == [n for n, _ in net.named_parameters() if ".conv1." in n]


def test_subspace_of_an_expansion_is_the_pull_of_its_gradient(cases):
    """psi.grad = P^T g, g the gradient of all factors jointly."""
    model, x = cases.Conv().double(), torch.randn(4, 2, 6, 6).double()
    inner = wf.expand(model, rate=2, seed=0)
    net = wf.subspace(inner, dim=9, seed=2)
    net(x).square().mean().backward()
    inner(x).square().mean().backward()
    g = torch.cat([p.grad.flatten() for p in inner.parameters()])
    expected = net.charts[0].projection.matrix().T @ g
    torch.testing.assert_close(net.charts[0].psi.grad, expected, rtol=1e-12, atol=1e-12)


def test_dimension_out_of_range(cases):
    model = nn.Sequential(nn.Linear(2, 2))
    for dim in (0, -3, 7):
        with pytest.raises(ValueError, match=f"dim={dim} must be between 1 and the 6 weights"):
            wf.subspace(model, dim=dim)
    assert wf.subspace(model, dim=6).charts[0].psi.numel() == 6
