"""torch.func over the net: grad, jvp, linearize, vmap over seeds."""

import copy

import pytest
import torch
from torch.func import functional_call, grad, jvp, linearize, stack_module_state, vjp, vmap


# torch.func.linearize warns about its own constants, with a plain module too.
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")
def test_grad_jvp_vjp_linearize(cases, case):
    net = case.net.eval()
    psi = {n: p.detach() for n, p in net.named_parameters()}

    def out(psi):
        return functional_call(net, psi, (case.x,), {"at": case.at})

    case.run().square().mean().backward()
    found = grad(lambda psi: out(psi).square().mean())(psi)
    plain = cases.gradients(net)
    assert cases.gap({n: found[n] for n in plain}, plain) <= 1e-12
    assert not any(g.any() for n, g in found.items() if n not in plain)

    u = {n: torch.randn_like(p) for n, p in psi.items()}
    value, tangent = jvp(out, (psi,), (u,))
    g = torch.randn_like(value)
    (back,) = vjp(out, psi)[1](g)
    expected = sum((u[n] * back[n]).sum() for n in u)
    torch.testing.assert_close((tangent * g).sum(), expected, rtol=1e-11, atol=1e-11)
    _, push = linearize(out, psi)
    torch.testing.assert_close(push(u), tangent, rtol=1e-12, atol=1e-12)


def test_vmap_over_seeds_is_the_loop(cases, kind):
    seeds = [cases.make(kind, seed) for seed in range(3)]
    nets, x, at = [c.net.train() for c in seeds], seeds[0].x, seeds[0].at
    states = stack_module_state(nets)
    psi, buffers = ({n: t.detach().clone() for n, t in s.items()} for s in states)
    base = copy.deepcopy(nets[0])

    def loss(psi, buffers):
        return functional_call(base, (psi, buffers), (x,), {"at": at}).square().mean()

    found = vmap(grad(loss))(psi, buffers)
    for index, net in enumerate(nets):
        net(x, at=at).square().mean().backward()
        plain = cases.gradients(net)
        assert cases.gap({n: found[n][index] for n in plain}, plain) <= 1e-11
        for name, buffer in net.named_buffers():
            torch.testing.assert_close(buffers[name][index], buffer, rtol=1e-12, atol=1e-12)
    moved = [n for n in buffers if n.endswith("num_batches_tracked")]
    assert not moved or any((buffers[n] == 1).all() for n in moved)
