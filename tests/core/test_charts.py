"""What single charts must get right beyond the laws."""

from collections import UserDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold import Charted
from weightfold.methods.expand.chain import Chain
from weightfold.methods.mask.chart import Mask
from weightfold.methods.share.chart import Sharing
from weightfold.methods.subspace.chart import Subspace
from weightfold.methods.subspace.projections import KINDS


class Layers(nn.Module):
    """A container of the name that many models give it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_submodules_named_layers_expand(execution):
    model, x = Layers().double(), torch.randn(2, 2, 8, 8).double()
    net = wf.expand(model, init="preserve", execution=execution)
    torch.testing.assert_close(net(x), model(x), rtol=1e-10, atol=1e-10)


def test_a_name_of_the_chart_itself_is_refused():
    model = nn.Module()
    model.fit = nn.Conv2d(2, 3, 3)
    with pytest.raises(KeyError, match=r"'fit.weight' cannot be a name in Mask.*rename"):
        wf.mask(model, {"fit.weight": torch.ones(3, 2, 3, 3)})


def test_sharing_keeps_the_filters_of_weight_and_bias_together():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    classes = {"birds": 2, "cars": 2}
    chart = Sharing.build(model, own={"0": [[0, 1], [3, 4]]}, norms=[], head="2", classes=classes)
    net = Charted(model, [chart])
    for domain in classes:
        for name, tensor in net.theta({"domain": domain}).items():
            assert torch.equal(tensor, model.get_parameter(name)), name
    with torch.no_grad():
        chart.domains["cars"].get_parameter("0.bias").add_(1)
        chart.shared.get_parameter("0.bias").add_(2)
    moved = net.theta({"domain": "cars"})["0.bias"] - model[0].bias
    assert moved.round().tolist() == [1, 2, 2, 1]


def test_sharing_keeps_frozen_tensors_frozen():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model.requires_grad_(False)
    own, classes = {"0": [[0, 2]]}, {"a": 2}
    chart = Sharing.build(model, own=own, norms=["1"], head="3", classes=classes)
    assert not any(p.requires_grad for p in chart.parameters())


def test_an_idle_domain_stays_bitwise_still(cases):
    case = cases.make("sharing")
    net = case.net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step(domain):
        optimizer.zero_grad()
        net(case.x, at={"domain": domain}).square().mean().backward()
        optimizer.step()

    step("birds")
    step("cars")
    idle = {n: t.clone() for n, t in net.state_dict().items() if ".birds." in n}
    busy = {n: t.clone() for n, t in net.state_dict().items() if ".birds." not in n}
    for _ in range(3):
        step("cars")
    after = net.state_dict()
    assert len(idle) == 9
    assert all(torch.equal(after[n], t) for n, t in idle.items())
    assert any(not torch.equal(after[n], t) for n, t in busy.items())


def test_domains_share_exactly_the_shared_filters(cases):
    case = cases.make("sharing")
    birds, cars = (case.net.theta({"domain": d})["0.weight"] for d in ("birds", "cars"))
    same = [torch.equal(a, b) for a, b in zip(birds, cars, strict=True)]
    assert same == [False, True, True, False]


@pytest.mark.parametrize("at", [{}, {"domain": "boats"}])
def test_unknown_or_missing_domain(cases, at):
    case = cases.make("sharing")
    with pytest.raises(KeyError, match=r"domain=.*birds, cars"):
        case.net(case.x, at=at)
    case.run()


def test_mask_copies_the_given_mask_and_stops_gradients():
    model = nn.Sequential(nn.Linear(4, 3))
    mask = torch.rand(3, 4) < 0.5
    chart = Mask(dict(model.named_parameters()), {"0.weight": mask})
    kept = mask.clone()
    mask.fill_(True)
    net = Charted(model, [chart])
    net(torch.randn(5, 4)).square().sum().backward()
    assert torch.equal(net.deploy()[0].weight != 0, kept)
    assert torch.equal(chart.get_parameter("0.weight").grad != 0, kept)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "fastfood"])
def test_subspace_is_one_projection_of_all_tensors(kind):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    net = wf.subspace(model, dim=6, kind=kind, seed=3)
    size = sum(p.numel() for p in model.parameters())
    jacobian = torch.func.jacrev(
        lambda psi: torch.cat(
            [
                t.flatten()
                for t in torch.func.functional_call(net.charts[0], {"psi": psi}, ()).values()
            ]
        )
    )(net.charts[0].psi.detach())
    assert jacobian.shape == (size, 6)
    torch.testing.assert_close(jacobian.norm(dim=0), torch.ones(6), rtol=1e-5, atol=0)
    assert torch.linalg.matrix_rank(jacobian) == 6
    same, other = (wf.subspace(model, dim=6, kind=kind, seed=seed) for seed in (3, 4))
    p = net.charts[0].projection.matrix()
    assert torch.equal(same.charts[0].projection.matrix(), p)
    assert not torch.equal(other.charts[0].projection.matrix(), p)
    for name, tensor in net.theta().items():
        assert torch.equal(tensor, model.get_parameter(name))


@pytest.mark.parametrize("kind", KINDS)
def test_subspace_has_one_projection_for_all_dtypes(kind):
    theta0 = {"w": torch.randn(9)}
    single = Subspace(theta0, 4, seed=0, projection=kind)
    double = Subspace({"w": theta0["w"].double()}, 4, seed=0, projection=kind)
    assert torch.equal(single.double().projection.matrix(), double.projection.matrix())


@pytest.mark.parametrize("kind", KINDS)
def test_fit_of_a_subspace_is_least_squares(kind):
    theta0 = {"w": torch.randn(6, 7, dtype=torch.float64)}
    chart = Subspace(theta0, 5, seed=1, projection=kind)
    target = torch.randn(6, 7, dtype=torch.float64)
    chart.fit({"w": target})
    p = chart.projection.matrix()
    best = torch.linalg.lstsq(p, (target - theta0["w"]).flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(chart.psi.detach(), best, rtol=0, atol=1e-12)


def test_live_masks_have_no_dead_coordinates():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = {"0.weight": torch.rand(3, 4) < 0.5, "2.weight": torch.rand(2, 3) < 0.7}
    masks["0.weight"][0, 0] = True
    live = int(sum(m.sum() for m in masks.values()))
    net, full = wf.mask(model, masks, live=True), wf.mask(model, masks)
    x = torch.randn(5, 4)
    assert torch.equal(net(x), full(x))
    optimizer = torch.optim.Adam(net.parameters())
    net(x).square().sum().backward()
    optimizer.step()
    moments = sum(s["exp_avg"].numel() for s in optimizer.state.values())
    assert moments == live + 5 == sum(p.numel() for p in net.parameters())
    for name, mask in masks.items():
        assert not net.deploy().get_parameter(name)[~mask].any()


def test_live_masks_refuse_to_keep_nothing():
    with pytest.raises(ValueError, match="masks keep no weight"):
        wf.mask(nn.Linear(3, 2), {"weight": torch.zeros(2, 3)}, live=True)


def test_a_subspace_of_another_seed_loads_the_state_dict(tmp_path):
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(5, 4)
    net, other = (wf.subspace(model, dim=3, seed=seed) for seed in (1, 2))
    with torch.no_grad():
        net.charts[0].psi.normal_()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert torch.equal(other(x), net(x))
    wf.save(other, tmp_path / "again")
    assert torch.equal(wf.load(tmp_path / "again", model)(x), net(x))


@pytest.mark.parametrize("device_first", [True, False])
def test_meta_then_to_empty_draws_the_projection_again(device_first):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
    net = wf.subspace(model, dim=5, seed=1)
    with torch.no_grad():
        net.charts[0].psi.normal_()
    if device_first:
        with torch.device("meta"):
            empty = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
        other = wf.subspace(empty, dim=5, seed=1)
    else:
        other = wf.subspace(model, dim=5, seed=1).to("meta")
    other.to_empty(device="cpu")
    p, again = (n.charts[0].projection.matrix() for n in (net, other))
    assert torch.equal(again, p)
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(other(x), net(x))


@pytest.mark.parametrize("live", [False, True])
def test_an_infinite_weight_that_is_masked_is_zero(live):
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, torch.inf, torch.nan]]))
    net = wf.mask(model, {"weight": torch.tensor([[1, 0, 0]])}, live=live)
    assert net.deploy().weight.tolist() == [[1.0, 0.0, 0.0]]
    net.fit({"weight": torch.tensor([[2.0, torch.nan, -torch.inf]])})
    assert net.deploy().weight.tolist() == [[2.0, 0.0, 0.0]]


@pytest.mark.parametrize("conv", ["cl", "ck"])
@pytest.mark.parametrize("init", ["preserve", "paper"])
def test_a_kernel_of_zeros(conv, init):
    model = nn.Sequential(nn.Conv2d(2, 3, 5, padding=2))
    nn.init.zeros_(model[0].weight)
    net = wf.expand(model, rate=4, conv=conv, init=init, seed=0)
    residuals = net.fit(model.state_dict())
    assert max(residuals.values()) < 1e-5
    torch.testing.assert_close(net.deploy()[0].weight, model[0].weight)
    x = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(net(x), model(x))
    net(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("conv", ["cl", "ck"])
@pytest.mark.parametrize("init", ["preserve", "fit"])
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e20, 1e30])
def test_kernels_of_any_size(conv, init, size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 5), nn.Conv2d(3, 4, 5, groups=1), nn.Linear(4, 4))
    with torch.no_grad():
        for layer in model:
            layer.weight.mul_(size / layer.weight.abs().max())
        model[1].weight[:2] = 0  # pruned filters
    start = init if init == "preserve" else "paper"
    net = wf.expand(model, rate=4, conv=conv, linear="fc", where=["*"], init=start, seed=0)
    if init == "fit":
        net.fit(model.state_dict())
    # Below 1e-38 every one of 16 sums rounds to a multiple of the least float32.
    atol = 16 * 2.0**-149 if size < 1e-38 else size * 1e-4
    for name, tensor in net.deploy().named_parameters():
        wanted = model.get_parameter(name)
        torch.testing.assert_close(tensor, wanted, rtol=0, atol=atol if tensor.dim() > 1 else 1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_fit_names_the_layer_that_is_not_finite(value):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3))
    net = wf.expand(model, rate=2, seed=0)
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"'1'.*not finite"):
        net.fit(model.state_dict())


def test_weights_that_are_not_finite_are_refused():
    model = nn.Sequential(nn.Conv2d(2, 3, 3))
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'0'.*not finite"):
        wf.expand(model, init="preserve", seed=0)


def test_verify_compares_every_output():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.c(x)
            return {"features": y, "more": (y.mean((2, 3)), 3)}

    x = torch.randn(2, 3, 8, 8)
    for net in (wf.expand(Two(), rate=2, seed=0), wf.subspace(Two(), 3)):
        found = net.verify(x)
        assert found.rows[-1].layer == "whole net" and found.worst < 1e-12


@dataclass
class Output:
    """What a model may return."""

    features: torch.Tensor
    more: object = None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda good, bad: Output(good, {"x": bad}),
        lambda good, bad: [good, {"a": (good, Output(bad))}],
        lambda good, bad: UserDict(a=good, b=bad),
        lambda good, bad: (good, torch.fft.fft(bad)),
    ],
)
def test_verify_finds_a_difference_in_any_output(wrap):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.c(x)
            return wrap(y, y + isinstance(self.c, Chain))

    x = torch.randn(2, 3, 8, 8)
    right = wf.expand(Model(), rate=2, seed=0, execution="fold")
    assert right.verify(x).worst < 1e-12
    wrong = wf.expand(Model(), rate=2, seed=0, execution="chain")
    found = wrong.verify(x).rows[-1]
    assert found.layer == "whole net" and (found.relative > 0.1)


@pytest.mark.parametrize("execution", ["chain", "fold"])
@pytest.mark.parametrize("level", [lambda net: net, lambda net: wf.subspace(net, 5)])
def test_apply_names_what_it_cannot_initialise(execution, level):
    def initialise(layer):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)

    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    net = level(wf.expand(model, rate=2, seed=0, execution=execution))
    with pytest.raises(RuntimeError, match=r"'\S*model\.\S*' \(\w+\)"):
        net.apply(initialise)
    with pytest.raises(ZeroDivisionError):
        net.apply(lambda layer: 1 / 0)
    seen = []
    net.apply(lambda layer: seen.append(type(layer)))
    assert nn.Linear in seen
    expanded = wf.expand(model, rate=2, seed=0)
    before = [p.detach().clone() for p in expanded.charts.parameters()]
    expanded.charts.apply(initialise)
    assert not any(
        torch.equal(a, b)
        for a, b in zip(before, expanded.charts.parameters(), strict=True)
        if a.dim() > 1
    )


@pytest.mark.parametrize("execution", ["chain", "fold"])
def test_groups_by_layer_type_have_every_parameter_once(execution):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    net = wf.expand(model, rate=2, seed=0, execution=execution)
    groups = {True: [], False: []}
    for layer in net.modules():
        for name, p in layer.named_parameters(recurse=False):
            groups[isinstance(layer, nn.Conv2d | nn.Linear) and name == "weight"].append(p)
    assert {id(p) for p in (*groups[True], *groups[False])} == {id(p) for p in net.parameters()}
    assert len(groups[True]) == 4 and len(groups[False]) == 6  # three factors, the Linear


def test_an_error_in_a_forward_leaves_nothing_behind(cases):
    case = cases.make("sharing")
    before = case.run(case.net.eval())
    with pytest.raises(RuntimeError):
        case.net(case.x[:, :1], at={"domain": "birds"})
    assert torch.equal(case.run(), before)


@pytest.mark.parametrize("execution", ["chain", "fold"])
def test_code_around_a_layer_reads_its_attributes(execution):
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.f = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

        def forward(self, x):
            y = self.c(x.to(self.c.weight.dtype)).view(len(x), self.c.out_channels, -1)
            return self.f(y.mean(2).view(-1, self.f.in_features))

    class Bias(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + (self[0].bias is None)

    for bias in (False, True):
        biased, image = Bias(nn.Conv2d(3, 6, 3, bias=bias)), torch.randn(2, 3, 8, 8)
        net = wf.expand(biased, rate=2, seed=0, execution=execution)
        torch.testing.assert_close(net(image), net.deploy()(image))

    model, x = Reads(), torch.randn(2, 3, 8, 8)
    net = wf.expand(model, rate=2, seed=0, execution=execution)
    assert torch.equal(net(x.double()), net(x))
    plan = wf.plan_sharing(model, "bottom", 0.5, example_input=x)
    shared = wf.share(model, {"a": 4, "b": 4}, plan)
    torch.testing.assert_close(shared(x.double(), domain="a"), shared.deploy(domain="a")(x))
    assert shared(x, domain=["a", "b"]).shape == (2, 4)
