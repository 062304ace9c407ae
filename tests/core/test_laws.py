"""Laws that every chart of the catalogue obeys, on its own example in float64, psi moved."""

import copy
import io
import pickle
import zipfile

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp, vjp

import weightfold as wf
from weightfold import Charted
from weightfold.core.mixins import LayerExecution
from weightfold.methods import catalogue


def bits(module: nn.Module) -> dict[str, bytes]:
    return {n: t.detach().numpy().tobytes() for n, t in module.state_dict().items()}


def test_adjoint(case):
    psi = dict(case.net.charts[0].named_parameters())

    def theta(psi):
        found = functional_call(case.net.charts[0], psi, (), case.at)
        return {n: t for n, t in found.items() if t.is_floating_point()}

    u = {n: torch.randn_like(p) for n, p in psi.items()}
    image, tangent = jvp(theta, (psi,), (u,))
    _, pull = vjp(theta, psi)
    g = {n: torch.randn_like(t) for n, t in image.items()}
    (back,) = pull(g)
    forwards = sum((tangent[n] * g[n]).sum() for n in g)
    backwards = sum((u[n] * back[n]).sum() for n in u)
    assert abs(forwards) > 1e-3
    torch.testing.assert_close(forwards, backwards, rtol=1e-12, atol=1e-12)


def test_deploy_is_the_eval_forward(case):
    net = case.net.eval()
    plain = net.deploy(case.at)
    torch.testing.assert_close(plain(case.x), case.run(), rtol=1e-12, atol=1e-12)
    assert all(not m.training for m in plain.modules())


def test_deploy_is_the_given_class_with_its_keys(case):
    plain = case.net.deploy(case.at)
    assert type(plain) is type(case.model)
    given = case.model.state_dict()
    found = plain.state_dict()
    assert list(found) == list(given)
    assert [t.shape for t in found.values()] == [t.shape for t in given.values()]
    assert [t.dtype for t in found.values()] == [t.dtype for t in given.values()]
    assert [type(m) for m in plain.modules()] == [type(m) for m in case.model.modules()]
    assert [(n, p.requires_grad) for n, p in plain.named_parameters()] == [
        (n, p.requires_grad) for n, p in case.model.named_parameters()
    ]
    assert not any(h for m in plain.modules() for h in m._forward_pre_hooks.values())
    stranger = catalogue()[case.kind].example().model.double()
    stranger.load_state_dict(found, strict=True)
    torch.testing.assert_close(stranger.eval()(case.x), plain.eval()(case.x), rtol=0, atol=0)


def test_deploy_shares_nothing_with_the_net(case):
    before = bits(case.net)
    plain = case.net.deploy(case.at)
    with torch.no_grad():
        for tensor in (*plain.parameters(), *plain.buffers()):
            tensor.zero_()
    assert bits(case.net) == before


def test_construction_leaves_the_model_alone(cases, kind):
    example = catalogue()[kind].example()
    before, modules = bits(example.model), list(example.model.modules())
    parameters = dict(example.model.named_parameters())
    net = Charted(example.model, [example.chart])
    cases.shake(net)
    net(example.x, at=example.at).sum().backward()
    assert bits(example.model) == before
    assert list(example.model.modules()) == modules
    assert {n: id(p) for n, p in example.model.named_parameters()} == {
        n: id(p) for n, p in parameters.items()
    }
    assert all(p.grad is None for p in parameters.values())
    mine = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    theirs = example.model.state_dict(keep_vars=True).values()
    assert not mine & {t.untyped_storage().data_ptr() for t in theirs}


def test_a_verb_builds_without_sharing(kind):
    """`build`, as wf.load calls it, copies too."""
    example = catalogue()[kind].example()
    chart = type(example.chart).build(example.model, **example.chart.config())
    mine = {t.untyped_storage().data_ptr() for t in (*chart.parameters(), *chart.buffers())}
    theirs = example.model.state_dict(keep_vars=True).values()
    assert not mine & {t.untyped_storage().data_ptr() for t in theirs}


def test_parameters_are_psi_and_the_uncharted(case):
    charted = set(case.net.theta(case.at))
    named = dict(case.net.named_parameters())
    expected = {f"charts.0.{n}": p.shape for n, p in case.chart.named_parameters()}
    expected |= {
        f"model.{n}": p.shape for n, p in case.model.named_parameters() if n not in charted
    }
    assert {n: p.shape for n, p in named.items()} == expected
    assert not [n for n in case.net.state_dict() if n.removeprefix("model.") in charted]


def test_no_copy_of_theta(case):
    case.run()
    uncharted = [t for n, t in case.model.state_dict().items() if n not in case.net.theta(case.at)]
    own = (*case.chart.parameters(), *case.chart.buffers())
    expected = sum(t.numel() * t.element_size() for t in (*uncharted, *own))
    tensors = (*case.net.parameters(), *case.net.buffers())
    assert sum(t.numel() * t.element_size() for t in tensors) == expected
    file = io.BytesIO()
    torch.save(case.net, file)
    with zipfile.ZipFile(file) as archive:
        stored = sum(i.file_size for i in archive.infolist() if "/data/" in i.filename)
    assert stored == expected


def test_batch_norm_buffers_are_the_plain_models(case):
    net = case.net.train()
    plain = net.deploy(case.at).train()
    named = dict(plain.named_parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(3):
        x = case.x + step
        theta = {n: t for n, t in net.theta(case.at).items() if n in named}
        functional_call(plain, theta, (x,))
        case.run(x=x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        now = net.deploy(case.at)
        for (name, mine), theirs in zip(now.named_buffers(), plain.buffers(), strict=True):
            assert torch.equal(mine, theirs), name
        plain.load_state_dict(now.state_dict())
    norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.num_batches_tracked == 3 for m in norms)


def test_state_dict_round_trip(cases, case, tmp_path):
    torch.save(case.net.state_dict(), tmp_path / "net.pt")
    other = cases.make(case.kind, seed=1)
    assert not torch.equal(other.run(other.net.eval(), case.x), case.run(case.net.eval()))
    other.net.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert torch.equal(other.run(x=case.x), case.run())


def test_save_and_load(cases, case, tmp_path):
    wf.save(case.net, tmp_path / "net")
    other = cases.make(case.kind, seed=1)
    loaded = wf.load(tmp_path / "net", other.model)
    assert isinstance(loaded, Charted)
    assert torch.equal(case.run(loaded.eval()), case.run(case.net.eval()))
    assert list(loaded.state_dict()) == list(case.net.state_dict())


def test_deepcopy_and_pickle(case):
    expected = case.run(case.net.eval())
    expected.sum().backward()
    for clone in (copy.deepcopy(case.net), pickle.loads(pickle.dumps(case.net))):
        assert torch.equal(case.run(clone), expected)
        with torch.no_grad():
            for p in clone.parameters():
                p.zero_()
        assert torch.equal(case.run(), expected)
        assert torch.equal(case.run(clone.deploy(case.at)), case.run(clone))


def test_fit_reports_its_residual(case):
    plain = case.net.deploy(case.at)
    state = {
        n: torch.rand(t.shape, dtype=t.dtype) + 0.5 if t.is_floating_point() else t + 3
        for n, t in plain.state_dict().items()
    }
    residuals = case.net.fit(state)
    found = case.net.deploy(case.at).state_dict()
    assert set(residuals) == set(case.net.theta(case.at))
    for name, given in state.items():
        measured = (found[name] - given).double().norm() / given.double().norm()
        assert measured <= residuals.get(name, 0) * (1 + 1e-9) + 1e-12, name
        assert measured >= residuals.get(name, 0) * (1 - 1e-9) - 1e-12, name
        assert measured < 1e-9 or not case.fits


def test_fit_finds_weights_that_exist(cases, case):
    other = cases.make(case.kind, seed=0)
    residuals = other.net.fit(case.net.deploy(case.at).state_dict())
    assert max(residuals.values()) < 1e-9
    torch.testing.assert_close(
        other.run(other.net.eval()), case.run(case.net.eval()), rtol=1e-9, atol=1e-9
    )


def test_fit_refuses_another_architecture(case):
    state = case.net.deploy(case.at).state_dict()
    before = bits(case.net)
    first = next(iter(state))
    with pytest.raises(KeyError, match=first.replace(".", r"\.")):
        case.net.fit({n: t for n, t in state.items() if n != first})
    assert bits(case.net) == before


def swapped(config):
    """The same configuration with every execution the other one."""
    if isinstance(config, dict):
        other = {"fold": "chain", "chain": "fold"}
        return {k: other[v] if k == "execution" else swapped(v) for k, v in config.items()}
    return [swapped(v) for v in config] if isinstance(config, list) else config


def test_executor_is_the_same_function(cases, case):
    chart = case.net.charts[0]
    other = type(chart).build(case.model, **swapped(chart.config()))
    if swapped(chart.config()) == chart.config():
        pytest.skip(f"{case.kind} has no choice of executors; verify compares those it has")
    assert set(chart.executors()) != set(other.executors())
    net = Charted(case.model, [other])
    net.load_state_dict(case.net.state_dict(), strict=True)
    for clone in (net, case.net):
        clone.train()
        case.run(clone).square().mean().backward()
    assert cases.gap(cases.gradients(net), cases.gradients(case.net)) <= 1e-12
    torch.testing.assert_close(
        case.run(net.eval()), case.run(case.net.eval()), rtol=1e-12, atol=1e-12
    )


def test_verify_finds_nothing(case):
    found = case.net.verify(case.x, at=case.at)
    assert found.worst <= 1e-12
    chart = case.net.charts[0]
    layers = set(chart.alternatives()) if isinstance(chart, LayerExecution) else set()
    assert {row.layer for row in found.rows} == layers | {"whole net"}


def test_config_is_json(case):
    import json

    config = json.loads(json.dumps(case.chart.config()))
    chart = type(case.chart).build(case.model, **config)
    assert {n: p.shape for n, p in chart.named_parameters()} == {
        n: p.shape for n, p in case.chart.named_parameters()
    }
    assert json.loads(json.dumps(chart.config())) == config
