import gc
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

import weightfold as wf
from weightfold.core.charted import Charted
from weightfold.probes.hessian.krylov import NotConverged
from weightfold.probes.hessian.probe import curvature
from weightfold.tasks.registry import build

from .conftest import norm_net

EPS = torch.finfo(torch.float64).eps


def exact(net, samples, loss=nn.functional.cross_entropy):
    """The Hessian by torch's own, of all trainable parameters in their order."""
    params = {n: p.detach() for n, p in net.named_parameters()}
    sizes = [p.numel() for p in params.values()]
    x, y = samples.train.inputs.double(), samples.train.targets

    def value(flat):
        parts = zip(params.items(), flat.split(sizes), strict=True)
        tensors = {name: part.view(p.shape) for (name, p), part in parts}
        return loss(functional_call(net, tensors, (x,)), y)

    return torch.autograd.functional.hessian(
        value, torch.cat([p.flatten() for p in params.values()])
    )


def dense(h):
    return h @ torch.eye(h.size, dtype=torch.float64)


@pytest.mark.parametrize("bn", ["keep", "batch"])
def test_it_is_the_exact_hessian(net, samples, bn):
    h = wf.hessian(net, samples, bn=bn)
    if bn == "batch":
        net[1].train()
    wanted = exact(net, samples)
    # A product sums `size` terms; four layers of arithmetic lie between, each of a few dozen terms.
    bound = 100 * h.size * EPS * wanted.norm()
    assert (dense(h) - wanted).abs().max() < bound


def test_batches_add_up(net, samples):
    from weightfold.probes.objective import Objective

    whole, parts = (
        wf.hessian(net, samples).objective,
        Objective(net, samples, batch_size=7),
    )
    assert parts.count == 5
    found = [dense(type(wf.hessian(net, samples))(o)) for o in (whole, parts)]
    torch.testing.assert_close(*found, rtol=0, atol=1e3 * EPS * found[0].norm().item())


def test_gauss_newton_is_jacobian_by_jacobian(samples):
    net = norm_net()
    g = wf.hessian(net, samples, matrix="gauss-newton")
    params = {n: p.detach() for n, p in net.named_parameters()}
    x = samples.train.inputs.double()
    jac = torch.func.jacrev(lambda p: functional_call(net, p, (x,)))(params)
    jac = torch.cat([jac[n].flatten(2) for n in params], dim=2)
    p = net(x).softmax(1).detach()
    inner = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) / len(x)
    wanted = torch.einsum("nip,nij,njq->pq", jac, inner, jac)
    assert (dense(g) - wanted).abs().max() < 100 * g.size * EPS * wanted.norm()


def test_eigenvalues_lie_within_their_bounds(net, samples):
    h = wf.hessian(net, samples)
    values = torch.linalg.eigvalsh(dense(h))
    for which, wanted in (("largest", values.flip(0)), ("smallest", values)):
        for one, value in zip(h.eigenvalues(4, which=which), wanted.tolist(), strict=False):
            assert abs(one.value - value) <= one.bound + 10 * EPS * values.abs().max()
            assert one.bound <= 1e-3 * abs(one.value) + 16 * EPS * values.abs().max()


def test_what_did_not_converge_is_an_error_with_intervals(net, samples):
    h = wf.hessian(net, samples)
    values = torch.linalg.eigvalsh(dense(h))
    with pytest.raises(NotConverged, match="not converged to tol=1e-06 after 4 products") as caught:
        h.eigenvalues(2, tol=1e-6, products=4)
    for one in caught.value.found:
        assert (values - one.value).abs().min() <= one.bound


def test_equal_eigenvalues_are_all_found():
    from weightfold.probes.hessian.krylov import eigenvalues

    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.cat([torch.tensor([5.0, 5.0, 4.99]), torch.rand(57, generator=generator)])
    a = q @ spectrum.double().diag() @ q.T
    found, vectors = eigenvalues(lambda v: a @ v, a[0], 3, tol=1e-6, most=60)
    assert [round(one.value, 4) for one in found] == [5.0, 5.0, 4.99]
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3, dtype=torch.float64))
    small, _ = eigenvalues(lambda v: a @ v, a[0], 3, tol=1e-6, most=300, room=16 * 60 * 14)
    assert [round(one.value, 4) for one in small] == [5.0, 5.0, 4.99]  # restarted


def test_trace_and_spectrum(net, samples):
    h = wf.hessian(net, samples)
    values = torch.linalg.eigvalsh(dense(h))
    total = values.sum().item()
    exactly = h.trace(products=h.size)
    assert exactly.method == "exact" and math.isclose(exactly.value, total, rel_tol=1e-12)
    for method in ("hutch++", "hutchinson"):
        found = h.trace(products=60, method=method)
        assert 0 < found.bound < 3 * total
        assert abs(found.value - total) < 2 * found.bound  # a 95% interval, doubled
    spectrum = h.spectrum(vectors=12, steps=20)
    for x in (-0.01, 0.05, 0.5):
        share = spectrum.share_below(x)
        wide = share.high - share.low  # 95% intervals: as much again on either side
        assert share.low - wide <= (values <= x).double().mean() <= share.high + wide
        assert wide < 0.4
    low, high = spectrum.range
    assert values[0] - 1e-9 <= low <= high <= values[-1] + 1e-9


def test_psi_and_theta_of_a_linear_chart(samples):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Softplus(), nn.Linear(4, 3)).double()
    charted = wf.subspace(net, 6, seed=0).double()
    inside = dense(wf.hessian(charted, samples, coordinates="psi"))
    outside = dense(wf.hessian(charted, samples, coordinates="theta"))
    names = [n for n, _ in net.named_parameters()]
    psi = next(p for p in charted.parameters())

    def theta(values):
        found = functional_call(_Theta(charted), {"net.charts.0.psi": values}, ())
        return torch.cat([found[n].flatten() for n in names])

    j = torch.autograd.functional.jacobian(theta, psi.detach())
    assert inside.shape == (6, 6) and outside.shape == (163, 163)
    torch.testing.assert_close(inside, j.T @ outside @ j, rtol=0, atol=1e-12)


class _Theta(nn.Module):
    def __init__(self, net: Charted) -> None:
        super().__init__()
        self.net = net

    def forward(self):
        return self.net.theta()


def test_layers_are_the_diagonal_blocks(net, samples):
    whole = dense(wf.hessian(net, samples))
    at = 0
    for block in wf.hessian(net, samples).layers().values():
        own = whole[at : at + block.size, at : at + block.size]
        torch.testing.assert_close(dense(block), own, rtol=0, atol=1e-12)
        at += block.size
    assert at == len(whole)
    assert wf.hessian(net, samples, where="5.*").size == 99


def test_any_task(samples):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    x, y = samples.train.inputs, torch.randn(30, 2)
    task = build("regress", ((x, y), (x, y)))
    h = wf.hessian(net, task)
    features = torch.cat([x.flatten(1), torch.ones(30, 1)], dim=1).double()
    top = torch.linalg.eigvalsh(features.T @ features / 30)[-1]
    assert math.isclose(h.eigenvalues(1, tol=1e-9)[0].value, top.item(), rel_tol=1e-9)


class Noisy(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + torch.randn(())


@pytest.mark.parametrize("random", [norm_net(0.5).train(), Noisy(*norm_net()).eval()])
def test_a_random_loss_is_refused(random, samples):
    with pytest.raises(ValueError, match=r"net=\w+: its loss is random"):
        wf.hessian(random, samples).eigenvalues()


def test_bad_input(net, samples):
    h = wf.hessian(net, samples)
    for message, call in {
        "k=0": lambda: h.eigenvalues(0),
        "k=1000": lambda: h.eigenvalues(1000, products=2000),
        "tol=0": lambda: h.eigenvalues(tol=0),
        "which='top'": lambda: h.eigenvalues(which="top"),
        "vectors=1": lambda: h.spectrum(vectors=1),
        "products=2": lambda: h.trace(products=2),
        "bn='train'": lambda: wf.hessian(net, samples, bn="train"),
        "part|matrix='fisher'": lambda: wf.hessian(net, samples, matrix="fisher"),
        "where='conv'": lambda: wf.hessian(net, samples, where="conv"),
        "examples=0": lambda: wf.hessian(net, samples, examples=0),
        r"shape \(3,\)": lambda: h @ torch.zeros(3),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    with torch.no_grad():
        net[5].bias[0] = math.nan
    with pytest.raises(ValueError, match="its loss is nan"):
        wf.hessian(net, samples).eigenvalues()


def test_nothing_is_left_behind_by_a_thousand_products(samples):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    h = wf.hessian(net, samples)
    vector = torch.ones(h.size)

    def alive():
        gc.collect()
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    h @ vector
    before = alive()
    for _ in range(1000):
        h @ vector
    assert alive() <= before
    assert all(p.grad is None for p in net.parameters())


def test_the_network_is_left_as_found(net, samples):
    state = {k: v.clone() for k, v in net.state_dict().items()}
    for bn in ("keep", "batch", "recalibrate"):
        wf.hessian(net, samples, bn=bn).eigenvalues()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_the_probe_records_and_draws(net, samples, tmp_path):
    found = curvature(
        net.float(), samples, device="cpu", k=2, vectors=2, steps=6, products=6, tol=1e-6,
        progress=False,
    )  # fmt: skip
    assert any("not converged" in note for note in found.notes)
    again = type(found).from_record(found.record())
    assert again.rows() == found.rows() and str(found.points[0].loss)[:4] in found.headline
    found.draw(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
