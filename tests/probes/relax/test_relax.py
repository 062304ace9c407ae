"""Networks set free: what is trained, what is measured, what is refused."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import weightfold as wf
from weightfold.data import as_dataset
from weightfold.probes.relax.lasso import BETA, BetaLasso
from weightfold.probes.relax.measurements import accuracy, only, sharpness
from weightfold.probes.relax.options import RelaxOptions
from weightfold.report.page import Table

RECIPE = wf.Recipe(epochs=3, batch_size=10, lr=0.1, momentum=0, schedule="constant",
                   crop_padding=0, flip=False)  # fmt: skip
GENERATOR = torch.Generator().manual_seed(0)
Y = torch.arange(40) % 2
X = torch.randn(40, 1, 6, 6, generator=GENERATOR) + Y.view(-1, 1, 1, 1)
DATA = as_dataset(((X, Y), (X[:20], Y[:20])))
QUICK = {"epochs": 2, "lr": 0.05, "curvature": 10, "points": 3, "relax_at": (0, 1, 3)}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(2, 2, 2), nn.Flatten(), nn.Linear(8, 2))  # fmt: skip


def relaxed(folder=None, **options):
    given = {"seeds": 1, "recipe": RECIPE, "device": "cpu", "progress": False, **QUICK, **options}
    return wf.relax(network, DATA, folder=folder, **given)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return relaxed(tmp_path_factory.mktemp("relax"), seeds=2)


def test_every_relax_time_starts_where_the_network_was(found):
    assert found.times == (0, 1, 3) and len(found.runs) == 2 * 4
    for cnn in found.convolutional:
        past = {point.epoch: point.accuracy for point in cnn.curve}
        for time in found.times:
            (run,) = [r for r in found.of(time) if r.seed == cnn.seed]
            assert run.before.accuracy == pytest.approx(past[time])
            assert run.curve[0].accuracy == pytest.approx(past[time])
            assert run.before.local == 0 and run.before.shared < 1e-7
            assert run.after.local > 0 and run.after.shared > run.after.local
            assert run.before.only_local == run.before.accuracy
            assert [point.epoch for point in run.curve] == [0, 1, 2]
    assert all(run.after.local > 0.5 for run in found.of(None))


def test_paths_end_in_the_networks_they_join(found):
    for run in found.runs:
        if run.relaxed_at is None:
            continue
        to_cnn, to_scratch = run.paths
        assert (to_cnn.ends, to_scratch.ends) == (("CNN", "eFCN"), ("eFCN", "FCN"))
        (scratch,) = [r for r in found.of(None) if r.seed == run.seed]
        assert to_cnn.accuracy[-1] == to_scratch.accuracy[0] == run.after.accuracy
        assert to_scratch.accuracy[-1] == scratch.after.accuracy
        assert to_scratch.local[-1] == pytest.approx(scratch.after.local)
        assert to_cnn.local[0] == 0


def test_filters_begin_local(found):
    (run, _) = found.of(1)
    image = torch.tensor(run.filters[0].values)
    assert image.shape == (6, 6) and (image > 0).sum() <= 4  # padding is folded: 2 x 2 of 3 x 3
    assert run.filters[0].epoch == 0 and run.filters[-1].epoch == 2


def test_the_finding_tells_and_is_told_again(found, tmp_path):
    assert "Set free after" in found.headline and "Estimate" in found.notes[0]
    again = type(found).from_record(found.record())
    assert again.runs == found.runs and again.headline == found.headline
    assert isinstance(found.table(), Table) and len(found.rows()) == len(found.runs)
    found.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_stopped_it_goes_on_and_other_options_are_refused(tmp_path, monkeypatch):
    import weightfold.probes.relax.runs as runs

    whole = relaxed()
    trained = runs.measure_state
    calls = []

    def stop(*args):
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return trained(*args)

    monkeypatch.setattr(runs, "measure_state", stop)
    with pytest.raises(KeyboardInterrupt):
        relaxed(tmp_path / "relax")
    monkeypatch.undo()
    assert relaxed(tmp_path / "relax").runs == whole.runs
    with pytest.raises(FileExistsError, match="lr"):
        relaxed(tmp_path / "relax", lr=0.2)


@pytest.mark.parametrize(
    "options",
    [
        {"space": "local"},
        {"optimizer": "adamw", "lr": 1e-3},
        {"rate": "fair", "lr": 1e-3},
        {"lasso": 1e-6},
        {"scratch": False, "points": 0, "curvature": 0},
    ],
)
def test_each_condition_runs(options):
    found = relaxed(**{"relax_at": (3,), **options})
    assert not any(run.failed for run in found.runs) and found.best == 3
    if options.get("space") == "local":
        assert all(run.after.local == 0 < run.after.shared for run in found.of(3))


def test_a_run_that_diverges_is_told_and_spoils_no_other():
    found = relaxed(lr=1e12, relax_at=(1,))
    assert all(run.failed for run in found.runs) and found.best is None
    assert "No relaxed network" in found.headline and any("Seed 0" in n for n in found.notes)


def test_snapshots_of_ones_own():
    nets = {0: network(1), 5: network(2)}
    found = relaxed(relax_at=None, snapshots={e: net.state_dict() for e, net in nets.items()})
    assert found.times == (0, 5) and found.recipe is None
    assert found.of(0)[0].before.accuracy == accuracy(nets[0], DATA)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"relax_at": (0, 4)}, ValueError, "relax_at has epoch 4"),
        ({"lr": 0}, ValueError, "lr=0"),
        ({"space": "lowrank"}, ValueError, "space='lowrank'"),
        ({"rate": "fair", "optimizer": "adamw"}, ValueError, "rate='fair'"),
        ({"colour": 1}, TypeError, "'colour'"),
        ({"snapshots": {0: {}}}, ValueError, "relax_at"),
        ({"relax_at": None, "snapshots": {}}, ValueError, "snapshots is empty"),
        (
            {"relax_at": None, "snapshots": {0: network().state_dict(), 2: {"a": torch.ones(1)}}},
            ValueError,
            r"snapshots\[2\]",
        ),
    ],
)
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        relaxed(**options)


def test_what_does_not_fit_is_told_before_work(monkeypatch):
    monkeypatch.setattr("weightfold.probes.relax.probe.memory", lambda device: 10_000)
    with pytest.raises(MemoryError, match="optimizer='adamw'"):
        relaxed(optimizer="adamw")


def test_relax_times_are_spaced_by_logarithm():
    assert RelaxOptions(times=8).relax_times(40) == (0, 1, 2, 3, 6, 12, 22, 40)
    assert RelaxOptions(times=1).relax_times(0) == (0,)


def test_parts_alone_and_all_of_them_afterwards():
    net = wf.embed(network(), (1, 6, 6))
    with torch.no_grad():
        net[0].weight.add_(1.0)
    whole = net[0].weight.clone()
    with only(net, local=True):
        inside = net[0].weight.clone()
        assert wf.deviation(net, "local") == 0
    with only(net, local=False):
        assert torch.equal(inside + net[0].weight, whole)
    assert torch.equal(net[0].weight, whole)


def test_sharpness_is_that_of_the_whole_hessian():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, y = X[:8].double(), Y[:8]
    names = [name for name, _ in net.named_parameters()]
    sizes = [p.numel() for p in net.parameters()]

    def loss(flat):
        parts = flat.split(sizes)
        given = {n: t.view(p.shape) for n, t, p in zip(names, parts, net.parameters(), strict=True)}
        return F.cross_entropy(torch.func.functional_call(net, given, (x,)), y)

    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    top = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1].item()
    value, gradient, found, residual = sharpness(net, x, y, most=60, tolerance=1e-8)
    assert value == pytest.approx(loss(flat).item())
    assert gradient == pytest.approx(torch.func.grad(loss)(flat).norm().item())
    assert found == pytest.approx(top, rel=1e-6) and residual <= 1e-6
    _, _, rough, bound = sharpness(net, x, y, most=3)
    assert abs(rough - top) <= bound


def test_beta_lasso_shrinks_and_cuts():
    net = nn.Linear(3, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.4, -0.6]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)

    class Context:
        class strategy:
            pass

    Context.strategy.optimizer = optimizer
    lasso = BetaLasso(0.01)
    lasso.on_start(Context)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    bias = net.bias.item()
    optimizer.step()
    assert net.weight.tolist()[0] == pytest.approx([0.99, 0.0, -0.59]) and BETA == 50
    assert net.bias.item() == bias
    lasso.on_end(Context)
    optimizer.step()
    assert net.weight.tolist()[0] == pytest.approx([0.99, 0.0, -0.59])


def test_the_probe_of_sizes():
    from weightfold.probes.registry import probes

    found = probes()["embed"].measure(network, DATA, device="cpu")
    assert {one.space for one in found.spaces} == {"dense", "local", "lowrank", "shared"}
    assert all(one.difference < 1e-6 for one in found.spaces if one.difference is not None)
    assert found.layers[1].least == found.layers[1].most == 4
    assert type(found).from_record(found.record()) == replace(found)
