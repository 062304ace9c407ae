"""SharedNet: mixtures equal single domains, which equal the deployed network and Figure 1."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

import weightfold as wf
from weightfold.methods.share.chart import Sharing
from weightfold.methods.share.executors import DomainLayer
from weightfold.methods.share.mixture import Mixture

NAMES = ("birds", "cars", "dogs")


class Residual(nn.Module):
    """Convolutions of every sort, an in-place activation, a branch, a linear classifier."""

    def __init__(self, groups=1, stride=1, dilation=1, padding_mode="zeros", bias=True, kernel=3):
        super().__init__()
        self.first = nn.Conv2d(2, 8, kernel, stride, 1, dilation, 1, bias, padding_mode)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, 1, 1, 1, groups, bias)
        self.norm2 = nn.BatchNorm2d(8)
        self.side = nn.Conv2d(8, 8, 1, bias=bias)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.act(self.norm1(self.first(x)))
        x = self.act(self.norm2(self.second(x)) + self.side(x))
        return self.head(x.mean((2, 3)))


class ConvHead(nn.Module):
    """As SqueezeNet: no batch norm, a convolution as classifier, a ReLU behind it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 1))
        self.classifier = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.classifier(self.body(x)).mean((2, 3))


def shared(model, strategy="bottom", fraction=0.4, **options):
    """Three domains of different class counts, everything moved apart, float64."""
    torch.manual_seed(0)
    example = torch.zeros(1, 2, 12, 12)
    plan = wf.plan_sharing(model, strategy, fraction, example_input=example, **options)
    net = wf.share(model, {"birds": 4, "cars": 7, "dogs": 3}, plan).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
        for _name, buffer in net.named_buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    return net


def images(count, seed=0):
    return torch.randn(count, 2, 12, 12, generator=torch.Generator().manual_seed(seed)).double()


def alone(net, x, names):
    """Every image by itself, in its own domain."""
    return [net(x[i : i + 1], domain=name)[0] for i, name in enumerate(names)]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


MODELS = st.builds(
    Residual,
    groups=st.sampled_from([1, 2, 4, 8]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    padding_mode=st.sampled_from(["zeros", "reflect", "circular"]),
    bias=st.booleans(),
    kernel=st.sampled_from([1, 3]),
) | st.builds(ConvHead)


@settings(max_examples=25, deadline=None)
@given(
    model=MODELS,
    strategy=st.sampled_from(["bottom", "top", "random"]),
    fraction=st.sampled_from([0.3, 0.7, 1.0]),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=7),
    kernel=st.sampled_from(["grouped", "segments"]),
)
def test_a_mixture_is_its_images_one_by_one(model, strategy, fraction, names, kernel):
    net = shared(model, strategy, fraction).eval()
    for layer in net.model.modules():
        if isinstance(layer, DomainLayer):
            layer.kernel = kernel
    x = images(len(names))
    ids = torch.tensor([net.domains.index(name) for name in names])
    wanted = alone(net, x, names)
    logits = net(x, domain=ids)
    if len(set(names)) > 1:
        assert logits.shape == (len(names), max(net.classes[n] for n in set(names)))
    for i, name in enumerate(names):
        count = net.classes[name]
        close(logits[i, :count], wanted[i])
        assert (logits[i, count:] == -torch.inf).all()
    close(net(x, domain=names), logits)
    close(net(x, domain=ids.tolist()), logits)
    for i, name in enumerate(names):
        close(net.deploy(domain=name)(x[i : i + 1])[0], wanted[i])


@settings(max_examples=20, deadline=None)
@given(
    model=MODELS,
    strategy=st.sampled_from(["bottom", "top", "random"]),
    counts=st.lists(st.integers(3, 5), min_size=3, max_size=3) | st.just([4, 4, 4]),
)
def test_training_together_is_training_apart(model, strategy, counts):
    """Gradients and statistics of one forward of all domains, and of one forward each."""
    net = shared(model, strategy).train()
    other = copy.deepcopy(net)
    batches = {n: images(c, seed=i) for i, (n, c) in enumerate(zip(NAMES, counts, strict=True))}
    out = net(batches)
    assert list(out) == list(batches)
    sum(logits.square().sum() for logits in out.values()).backward()
    for name, x in batches.items():
        logits = other(x, domain=name)
        close(out[name], logits)
        logits.square().sum().backward()
    for (name, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
        scale = q.grad.abs().max().clamp_min(1e-3)
        assert (p.grad - q.grad).abs().max() <= 1e-10 * scale, name
    for a, b in zip(net.buffers(), other.buffers(), strict=True):
        close(a, b)


@pytest.mark.parametrize("strategy", ["bottom", "top", "random"])
def test_figure_1_of_the_paper(strategy):
    """Run the backbone's filters and the domain's, and replace the activation maps."""
    net = shared(Residual(groups=2), strategy, 0.5).eval()
    plan = wf.plan_sharing(
        Residual(groups=2), strategy, 0.5, example_input=torch.zeros(1, 2, 12, 12)
    )
    x = images(2)
    backbone, domain = net.deploy(domain="birds"), net.deploy(domain="cars")
    replaced = 0

    def replace(path):
        mask = torch.tensor(plan.own[path])

        def hook(layer, inputs, output):
            specific = domain.get_submodule(path)(*inputs)
            return torch.where(mask[:, None, None], specific, output)

        return hook

    for path in plan.own:
        backbone.get_submodule(path).register_forward_hook(replace(path))
        replaced += sum(plan.own[path])
    for path in (*plan.norms, "head"):
        backbone.set_submodule(path, domain.get_submodule(path))
    assert replaced == plan.filters > 0
    close(backbone(x), net(x, domain="cars"))


def test_parameters_are_what_the_paper_counts():
    model = Residual(groups=2)
    plan = wf.plan_sharing(model, "bottom", 0.4, example_input=torch.zeros(1, 2, 12, 12))
    heads = {"birds": 4, "cars": 7}
    net = wf.share(model, heads, plan)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    c = sum(p.numel() for m in convolutions for p in m.parameters())
    e = sum(
        int(sum(mask)) * (model.get_submodule(path).weight[0].numel() + 1)
        for path, mask in plan.own.items()
    )
    b, h = 2 * (8 + 8), {name: 9 * classes for name, classes in heads.items()}
    total = sum(p.numel() for p in net.parameters())
    assert total == c - e + sum(e + b + h[name] for name in heads)
    assert total == plan.account(heads).total.parameters


def test_one_domain_at_a_time_is_run_by_reference():
    """A swap between resident domains allocates nothing."""
    net = shared(Residual())
    storages = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    for name in NAMES:
        operands = net.sharing.operands(domain=name)
        assert {t.untyped_storage().data_ptr() for t in operands.values()} <= storages


@pytest.mark.parametrize("optimizer", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
])  # fmt: skip
def test_absent_domains_stay_bitwise_still(optimizer):
    net = shared(Residual()).train()
    steps = optimizer(net.parameters())
    for names in (NAMES, ("birds", "dogs"), ("birds",)):
        before = {n: t.clone() for n, t in net.state_dict().items()}
        steps.zero_grad()
        sum(y.square().sum() for y in net({n: images(4) for n in names}).values()).backward()
        steps.step()
        for key, value in net.state_dict().items():
            owner = key.split(".")[3] if key.startswith("charts.0.domains.") else None
            if owner is not None and owner not in names:
                assert torch.equal(value, before[key]), key
            elif value.is_floating_point() and not key.startswith("charts.0.orders"):
                assert not torch.equal(value, before[key]), key


def test_images_of_different_sizes():
    net = shared(Residual()).eval()
    small, large = images(3), torch.randn(2, 2, 16, 20).double()
    out = net({"birds": small, "cars": large, "dogs": small})
    for name, x in {"birds": small, "cars": large, "dogs": small}.items():
        close(out[name], net(x, domain=name))


def test_domains_come_and_go():
    model = Residual()
    plain = {n: t.double() for n, t in model.state_dict().items()}
    net = shared(model)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    x = images(3)
    net.add_domain("ships", 5, from_domain="cars")
    net.add_domain("trees", 2, weights=plain)
    assert net.domains == [*NAMES, "ships", "trees"]
    assert all(torch.equal(net.state_dict()[n], t) for n, t in before.items())
    ships, cars = (net.theta({"domain": d}) for d in ("ships", "cars"))
    assert all(torch.equal(ships[n], t) for n, t in cars.items() if not n.startswith("head"))
    own = torch.tensor(list(net.sharing.layout.own["first"]))
    trees = net.theta({"domain": "trees"})
    assert torch.equal(trees["first.weight"][own], plain["first.weight"][own])
    assert torch.equal(trees["norm1.running_var"], plain["norm1.running_var"])
    assert net.eval()(x, domain="ships").shape == (3, 5)
    loss = net.train()({"ships": x, "birds": x})
    assert loss["ships"].shape == (3, 5)
    net.load_state_dict({**net.state_dict(), **before})
    net.remove_domain("cars")
    assert net.domains == ["birds", "dogs", "ships", "trees"]
    assert not any(".cars." in n for n in net.state_dict())
    other = copy.deepcopy(net).eval()
    close(other(x, domain="trees"), net.eval()(x, domain="trees"))


def test_shared_batch_norm_and_head():
    net = shared(Residual(), bn="shared", head="shared").eval()
    x = images(6)
    names = [*NAMES, *NAMES]
    logits = net(x, domain=names)
    for i, (name, row) in enumerate(zip(names, alone(net, x, names), strict=True)):
        close(logits[i, : net.classes[name]], row)
        close(net.deploy(domain=name)(x[i : i + 1])[0], row)
    assert sum(1 for n, _ in net.named_parameters() if "head" in n) == 2
    account = net.plan.account(net.classes)
    assert sum(p.numel() for p in net.parameters()) == account.total.parameters
    net.remove_domain("cars")
    close(net(x, domain="dogs"), net.deploy(domain="dogs")(x))
    with pytest.raises(ValueError, match=r"classes=8.*has 7"):
        net.add_domain("new", 8, from_domain="dogs")
    assert sum(1 for n, _ in net.named_parameters() if "norm" in n) == 4


def test_a_domain_in_a_random_subspace():
    net = shared(Residual())
    top = wf.subspace(net, dim=5, where="domains.cars.*", seed=1)
    with torch.no_grad():
        top.charts[0].psi.normal_()
    x = images(3)
    close(top.eval()(x, domain="birds"), net.eval()(x, domain="birds"))
    assert not torch.allclose(top(x, domain="cars"), net(x, domain="cars"))
    out = top.train()({"birds": x, "cars": x})
    sum(y.square().sum() for y in out.values()).backward()
    assert top.charts[0].psi.grad.abs().min() > 0


def test_compiles_whole_with_one_graph():
    net = shared(Residual()).eval()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = images(3)
    for name in ("birds", "cars"):
        close(compiled(x, domain=name), net(x, domain=name))
    batches = dict.fromkeys(NAMES, x)
    net.train()
    other = copy.deepcopy(net)
    for name, logits in compiled(batches).items():
        close(logits, other(dict.fromkeys(NAMES, x))[name])


def test_fit_one_domain_or_all():
    net, model = shared(Residual()), Residual().double()
    idle = net.theta({"domain": "dogs"})
    idle = {n: t.clone() for n, t in idle.items()}
    state = net.deploy(domain="birds").state_dict() | {
        n: t for n, t in model.state_dict().items() if not n.startswith("head")
    }
    assert max(net.fit(state, at={"domain": "birds"}).values()) == 0
    x = images(2)
    birds = net.deploy(domain="birds").eval()
    assert torch.equal(birds.norm1.weight, model.norm1.weight)
    close(net.eval()(x, domain="birds"), birds(x))
    mask = torch.tensor(net.sharing.layout.own["first"])
    after = net.theta({"domain": "dogs"})
    assert torch.equal(after["first.weight"][mask], idle["first.weight"][mask])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda net, x: net(x), KeyError, "birds, cars, dogs"),
        (lambda net, x: net(x, domain="brids"), KeyError, "'brids'.*birds, cars, dogs"),
        (lambda net, x: net(x, domain=["birds", "brids", "cars"]), KeyError, "'brids'"),
        (lambda net, x: net(x, domain=torch.tensor([0, 1, 3])), ValueError, "0 to 3.*2: dogs"),
        (lambda net, x: net(x, domain=torch.tensor([0, -1, 2])), ValueError, "-1"),
        (lambda net, x: net(x, domain=torch.tensor([0.0, 1.0, 2.0])), ValueError, "int64"),
        (lambda net, x: net(x, domain=torch.tensor([0, 1])), ValueError, "2 images, x holds 3"),
        (lambda net, x: net({"birds": x, "boats": x}), KeyError, "'boats'"),
        (lambda net, x: net({"birds": x[:0]}), ValueError, "'birds'.*empty"),
        (lambda net, x: net({}), ValueError, "empty"),
        (lambda net, x: net.deploy(domain="boats"), KeyError, "birds, cars, dogs"),
        (lambda net, x: net.remove_domain("boats"), KeyError, "birds, cars, dogs"),
        (
            lambda net, x: net.add_domain("birds", 3, from_domain="cars"),
            ValueError,
            "there already",
        ),
        (lambda net, x: net.add_domain("a.b", 3, from_domain="cars"), ValueError, "letters"),
        (lambda net, x: net.add_domain("new", 0, from_domain="cars"), ValueError, "classes=0"),
        (lambda net, x: net.add_domain("new", 3), ValueError, "one start: from_domain.*weights"),
        (lambda net, x: net.add_domain("new", 3, from_domain="boats"), KeyError, "'boats'"),
        (lambda net, x: net.add_domain("new", 3, weights={"a": x}), KeyError, "architecture"),
    ],
)
def test_wrong_calls(call, error, match):
    net = shared(Residual()).eval()
    with pytest.raises(error, match=match):
        call(net, images(3))
    assert net.domains == list(NAMES)


def test_wrong_shares():
    model = Residual()
    plan = wf.plan_sharing(model, example_input=torch.zeros(1, 2, 12, 12), fraction=0.2)
    with pytest.raises(ValueError, match="domains is empty"):
        wf.share(model, {}, plan)
    with pytest.raises(ValueError, match="classes=0"):
        wf.share(model, {"a": 0}, plan)
    with pytest.raises(ValueError, match="another model"):
        wf.share(ConvHead(), {"a": 3}, plan)
    with pytest.raises(TypeError, match="Charted"):
        wf.share(wf.expand(model, rate=2), {"a": 3}, plan)


def test_the_last_domain_stays():
    net = shared(Residual())
    for name in NAMES[:2]:
        net.remove_domain(name)
    with pytest.raises(ValueError, match="only one"):
        net.remove_domain("dogs")


def test_mixture_orders_are_inverse():
    names = ["b", "a", "b", "c", "a", "c"]
    mixture, order = Mixture.arrange(names)
    assert mixture.domains == ("a", "b", "c") and mixture.counts == (2, 2, 2)
    assert [names[i] for i in order] == ["a", "b", "c", "a", "b", "c"]
    uneven, order = Mixture.arrange(["b", "a", "b"])
    assert uneven.counts == (1, 2) and order.tolist() == [1, 0, 2]
    level, order = Mixture.arrange(["b", "a", "b"], level=True)
    assert level.equal and order.tolist() == [1, 0, 1, 2]
    assert level == uneven and level != mixture
    parts = [torch.arange(3), torch.arange(3) + 10]
    both = Mixture(("a", "b"), (3, 3))
    assert all(torch.equal(p, q) for p, q in zip(parts, both.part(both.join(parts)), strict=True))


def test_held_stacks_serve_any_counts(monkeypatch):
    net, calls = shared(Residual()).eval(), []
    operands = net.sharing.operands
    monkeypatch.setattr(net.sharing, "operands", lambda **at: calls.append(at) or operands(**at))
    names = [["birds", "cars"], ["cars", "cars", "birds"], ["cars", "birds"] * 3]
    with net.hold():
        held = [net(images(len(each)), domain=each) for each in names]
    assert len(calls) == 1
    for each, logits in zip(names, held, strict=True):
        close(logits, net(images(len(each)), domain=each))


def test_functional_call_over_the_net():
    """An outer functional_call reaches the coordinates: the chart reads its present tensors."""
    net = shared(Residual()).eval()
    name = "charts.0.domains.cars.norm1.weight"
    moved = {name: net.get_parameter(name) * 2}
    x = images(2)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.get_parameter(name).mul_(2)
    out = functional_call(net, moved, (x,), {"domain": "cars"})
    close(out, other(x, domain="cars"))
    assert isinstance(net.sharing, Sharing)


def test_a_domain_and_the_shared_filters_in_expanded_coordinates():
    net = shared(Residual(), fraction=0.5)
    x = images(3)
    for where in ("domains.cars.first", "shared.*"):
        top = wf.expand(net, rate=2, where=where, init="preserve", seed=0).eval()
        for name in NAMES:
            torch.testing.assert_close(
                top(x, domain=name), net.eval()(x, domain=name), rtol=1e-7, atol=1e-9
            )
        out = top.train()({name: x for name in NAMES})  # noqa: C420
        sum(y.square().sum() for y in out.values()).backward()
        factors = list(top.charts[0].parameters())
        assert len(factors) >= 3 and all(p.grad is not None for p in factors)
        close(top.eval().deploy({"domain": "cars"})(x), top(x, domain="cars"))


def test_a_stack_over_domains_is_saved(tmp_path):
    model = Residual()
    net = shared(model)
    x = images(2)
    for index, top in enumerate(
        [
            wf.expand(net, rate=2, where="domains.cars.*", seed=0),
            wf.subspace(net, dim=4, where="domains.cars.*", seed=3),
        ]
    ):
        with torch.no_grad():
            for p in top.charts.parameters():
                p.add_(0.1 * torch.randn_like(p))
        wf.save(top, tmp_path / str(index))
        back = wf.load(tmp_path / str(index), model.double()).eval()
        for name in NAMES:
            assert torch.equal(back(x, domain=name), top.eval()(x, domain=name))
