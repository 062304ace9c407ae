"""Plain autograd semantics: what any training loop does with the net."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import weightfold as wf
from weightfold import Charted
from weightfold.core.mixins import LayerExecution


def weights_seen(case, net: Charted) -> dict[str, torch.Tensor]:
    """What every leaf layer holds while the model runs."""
    seen: dict[str, torch.Tensor] = {}
    hooks = []
    for path, module in net.model.named_modules():

        def look(module, args, path=path):
            for name, p in module._parameters.items():
                if p is not None:
                    seen[f"{path}.{name}"] = p.detach().clone()

        hooks.append(module.register_forward_pre_hook(look))
    case.run(net)
    for hook in hooks:
        hook.remove()
    return seen


def test_theta_is_float32_under_autocast(cases, kind):
    case = cases.make(kind, dtype=torch.float32)
    case.net.eval()  # statistics stay where they are
    outside, layers = case.net.theta(case.at), weights_seen(case, case.net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, under = case.net.theta(case.at), weights_seen(case, case.net)
        out = case.run(case.net)
    assert out.dtype == torch.bfloat16
    assert all(torch.equal(inside[n], t) and inside[n].dtype == t.dtype for n, t in outside.items())
    assert list(under) == list(layers)
    assert all(torch.equal(under[n], t) and under[n].dtype == t.dtype for n, t in layers.items())
    out.float().square().mean().backward()
    assert {g.dtype for g in cases.gradients(case.net).values()} == {torch.float32}


def test_constructing_under_autocast(cases, kind):
    case = cases.make(kind, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Charted(case.model, [case.net.charts[0]])


def test_gradient_accumulation_is_the_large_batch(cases, case):
    net, x = case.net.eval(), torch.cat([case.x, case.x.flip(0)])
    case.run(x=x).square().mean().backward()
    large = cases.gradients(net)
    net.zero_grad()
    for half in x.chunk(2):
        (case.run(x=half).square().mean() / 2).backward()
    assert cases.gap(cases.gradients(net), large) <= 1e-12


@pytest.mark.parametrize("nested", [False, True])
def test_hold_is_accumulation(cases, case, monkeypatch, nested):
    net = wf.subspace(case.net, dim=6, seed=1) if nested else case.net
    cases.shake(net)
    other = copy.deepcopy(net)
    batches = [case.x, case.x.flip(0), 2 * case.x]
    for x in batches:
        case.run(other, x).square().mean().backward()

    calls = []
    chart = net.charts[0]
    name = "operands" if isinstance(chart, LayerExecution) else "forward"
    computed = getattr(chart, name)
    monkeypatch.setattr(chart, name, lambda **at: calls.append(at) or computed(**at))
    with net.hold() as held:
        assert held is net
        for x in batches:
            case.run(net, x).square().mean().backward()
    assert len(calls) == 1
    assert cases.gap(cases.gradients(net), cases.gradients(other)) <= 1e-12
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), other.buffers(), strict=True))
    case.run(net).sum().backward()
    assert len(calls) == 2


def test_hold_for_two_domains(cases, monkeypatch):
    case = cases.make("sharing")
    net, other = case.net, copy.deepcopy(case.net)
    steps = [("birds", case.x), ("cars", case.x), ("birds", case.x.flip(0))]
    for domain, x in steps:
        other(x, at={"domain": domain}).square().mean().backward()
    calls = []
    operands = net.charts[0].operands
    monkeypatch.setattr(net.charts[0], "operands", lambda **at: calls.append(at) or operands(**at))
    with net.hold():
        for domain, x in steps:
            net(x, at={"domain": domain}).square().mean().backward()
    assert [c["domain"] for c in calls] == ["birds", "cars"]
    assert cases.gap(cases.gradients(net), cases.gradients(other)) <= 1e-12


def test_hold_adds_to_earlier_gradients_and_allows_no_grad(cases, case):
    net = case.net.eval()
    case.run().square().mean().backward()
    once = cases.gradients(net)
    with net.hold():
        with torch.no_grad():
            case.run()
        case.run().square().mean().backward()
    assert cases.gap(cases.gradients(net), {n: 2 * g for n, g in once.items()}) <= 1e-12


def test_hold_without_backward_leaves_no_gradient(cases, case):
    with case.net.hold():
        case.run()
    assert not cases.gradients(case.net)


def test_hold_inside_hold_is_refused_and_the_outer_one_goes_on(cases, case):
    with case.net.hold():
        case.run().square().mean().backward()
        with pytest.raises(RuntimeError, match="already in force"), case.net.hold():
            pass
        case.run().square().mean().backward()
    held = cases.gradients(case.net)
    other = cases.make(case.kind)
    for _ in range(2):
        other.run().square().mean().backward()
    assert cases.gap(held, cases.gradients(other.net)) <= 1e-12


def test_an_exception_inside_hold_lets_go(cases, case):
    with pytest.raises(ZeroDivisionError), case.net.hold():
        case.run().square().mean().backward()
        raise ZeroDivisionError
    case.net.zero_grad()
    other = cases.make(case.kind)
    other.net.load_state_dict(case.net.state_dict())
    for one in (case, other):
        one.run().square().mean().backward()
    assert cases.gap(cases.gradients(case.net), cases.gradients(other.net)) <= 1e-12


def test_grad_scaler_skips_infinite_steps_and_scales_exactly(cases, case):
    net = case.net.eval()
    other = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)

    def step(factor):
        optimizer.zero_grad()
        scaler.scale(case.run(net).square().mean() * factor).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        return norm

    before = copy.deepcopy(net.state_dict())
    step(float("inf"))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert scaler.get_scale() == 8.0
    norm = step(1.0)
    plain = torch.optim.SGD(other.parameters(), lr=0.01)
    case.run(other).square().mean().backward()
    squares = sum(g.square().sum() for g in cases.gradients(other).values())
    torch.testing.assert_close(norm, squares.sqrt(), rtol=1e-12, atol=0)
    nn.utils.clip_grad_norm_(other.parameters(), 0.5)
    plain.step()
    assert cases.gap(dict(net.named_parameters()), dict(other.named_parameters())) <= 1e-12


def test_moving_average(cases, case):
    average = AveragedModel(case.net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(case.net)
    first = {n: p.detach().clone() for n, p in case.net.named_parameters()}
    cases.shake(case.net)
    average.update_parameters(case.net)
    for name, p in average.module.named_parameters():
        torch.testing.assert_close(p, 0.9 * first[name] + 0.1 * case.net.get_parameter(name))
    plain = average.module.eval().deploy(case.at)
    torch.testing.assert_close(case.run(average.module), plain(case.x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("convert", [False, True])
def test_channels_last(cases, case, convert):
    net = copy.deepcopy(case.net)
    if convert:
        net = net.to(memory_format=torch.channels_last)
    x = case.x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(case.run(net, x), case.run(), rtol=1e-12, atol=1e-12)
    for clone in (net, case.net):
        case.run(clone, x).square().mean().backward()
    assert cases.gap(cases.gradients(net), cases.gradients(case.net)) <= 1e-12
    torch.testing.assert_close(
        net.eval().deploy(case.at)(x), case.run(net, x), rtol=1e-12, atol=1e-12
    )


def test_half_precision_nets_fold_in_it(cases, kind):
    case = cases.make(kind, dtype=torch.float32)
    net = case.net.bfloat16()
    assert {t.dtype for t in net.theta(case.at).values() if t.is_floating_point()} == {
        torch.bfloat16
    }
    plain = net.deploy(case.at)
    assert plain(case.x.bfloat16()).dtype == torch.bfloat16


def test_inference_mode_then_train(cases, case):
    with torch.inference_mode():
        case.run(case.net.eval())
    case.run(case.net.train()).square().mean().backward()
    assert any(g.abs().sum() > 0 for g in cases.gradients(case.net).values())


def test_checkpointing_around_the_net(cases, case):
    net = case.net.eval()
    case.run().square().mean().backward()
    plain = cases.gradients(net)
    net.zero_grad()
    out = torch.utils.checkpoint.checkpoint(lambda x: case.run(net, x), case.x, use_reentrant=False)
    out.square().mean().backward()
    assert cases.gap(cases.gradients(net), plain) <= 1e-12


def test_any_optimizer_and_any_file_takes_the_parameters(case, tmp_path):
    net = copy.deepcopy(case.net)
    assert all(p.is_contiguous() for p in net.parameters())
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(vector, net.parameters())
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    assert load_file(tmp_path / "net.safetensors").keys() == net.state_dict().keys()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=2)

    def loss():
        optimizer.zero_grad()
        value = case.run(net).square().mean()
        value.backward()
        return value

    before = loss().item()
    optimizer.step(loss)
    assert loss().item() < before
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients and all(gradient.is_contiguous() for gradient in gradients)
