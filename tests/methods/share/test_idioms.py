"""What users do to a shared network's layers by class: freeze, reset, initialise, read, hook."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.optim.swa_utils import update_bn

import weightfold as wf
from weightfold.export import ExportError, to_exported_program, to_onnx

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def plain(**conv):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, **conv), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip


def share(model, classes=None, **options):
    plan = wf.plan_sharing(model, "bottom", 0.5, example_input=X, **options)
    return wf.share(model, classes or {"a": 3, "b": 2}, plan)


def moved(net, inputs=X, **where):
    before = [b.clone() for b in net.buffers()]
    net(inputs, **where)
    return not all(map(torch.equal, before, net.buffers()))


@pytest.mark.parametrize("where", [{"domain": "a"}, {"domain": ["a", "b"] * 3}])
def test_batch_norms_are_frozen_as_usual(where):
    net = share(plain()).train()
    assert moved(net, **where)
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    assert not moved(net, **where)
    net.train()
    assert moved(net, **where)
    net.model[1].eval()
    assert not moved(net, **where)


def test_one_domain_is_frozen_beside_another():
    net = share(plain()).train()
    net.sharing.domains["a"].get_submodule("1").eval()
    before = net.deploy(domain="a")[1].running_mean.clone()
    found = net({"a": X, "b": X + 1})
    assert torch.equal(net.deploy(domain="a")[1].running_mean, before)
    assert not torch.equal(net.deploy(domain="b")[1].running_mean, before)
    torch.testing.assert_close(found["a"], net(X, domain="a"))


@pytest.mark.parametrize("mode", ["model", "norm"])
def test_modes_before_sharing_stay(mode):
    model = plain()
    (model if mode == "model" else model[1]).eval()
    net = share(model)
    assert not net.model[1].training and not moved(net, domain="a")
    assert net.model[2].training == (mode == "norm")
    net.train()
    net.add_domain("c", 4, from_domain="a")
    assert moved(net, domain="c")


def test_update_bn_of_torch():
    net = share(plain()).train()
    update_bn([{"a": X, "b": X * 2}, {"a": X + 1, "b": X}], net)
    for domain, (one, two) in {"a": (X, X + 1), "b": (X * 2, X)}.items():
        alone = net.deploy(domain=domain)
        before = {n: t.clone() for n, t in alone.state_dict().items()}
        update_bn([one, two], alone)
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(before[name], tensor)


def test_momentum_and_eps_are_set_as_usual():
    net = share(plain()).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum, module.eps = 0.5, 0.1
    alone = net.deploy(domain="a").train()
    assert (alone[1].momentum, alone[1].eps) == (0.5, 0.1)
    torch.testing.assert_close(net({"a": X, "b": X})["a"], alone(X))
    torch.testing.assert_close(net.deploy(domain="a")[1].running_mean, alone[1].running_mean)
    with pytest.raises(AttributeError, match=r"'momentum'.*BatchNorm2d"):
        net.model[1].momentum = 0.3


def test_initialisation_and_groups_by_layer_type():
    net = share(plain()).train()

    def ones(module):
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            nn.init.ones_(module.weight)

    net.apply(ones)
    for domain in net.domains:
        alone = net.deploy(domain=domain)
        assert all((alone[i].weight == 1).all() for i in (0, 1, 4))
    found = [
        id(p)
        for m in net.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))
        for p in m.parameters(recurse=False)
    ]
    assert sorted(found) == sorted(id(p) for p in net.parameters())


def test_attributes_of_replaced_layers():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

        def forward(self, x):
            assert (self.conv.out_channels, self.conv.stride) == (6, (1, 1))
            assert (self.norm.num_features, self.head.in_features) == (6, 6)
            assert self.norm.running_mean.shape == self.norm.weight.shape == (6,)
            x = x.to(self.conv.weight.device, self.conv.weight.dtype)
            return self.head(self.norm(self.conv(x)).mean((2, 3)).to(self.head.weight.dtype))

    net = share(Reads()).eval()
    for domain in net.domains:
        torch.testing.assert_close(net(X, domain=domain), net.deploy(domain=domain)(X))
    torch.testing.assert_close(net({"a": X, "b": X})["b"], net(X, domain="b"))
    with pytest.raises(AttributeError, match=r"'weight'.*before wf\.share"):
        _ = net.model.conv.weight
    assert net.model.conv.out_channels == 6


@pytest.mark.parametrize("kind", ["forward", "pre", "backward"])
@pytest.mark.parametrize("layer", [0, 1, 4])
def test_hooks_of_before_run(kind, layer):
    model, calls = plain(), []
    if kind == "forward":
        model[layer].register_forward_hook(lambda m, args, out: calls.append(1) or 2 * out)
    elif kind == "pre":
        model[layer].register_forward_pre_hook(lambda m, args: calls.append(1) or (args[0] + 1,))
    else:
        model[layer].register_full_backward_hook(
            lambda m, given, _: calls.append(1) or tuple(g if g is None else 3 * g for g in given)
        )
    net = share(model).eval()
    alone = net.deploy(domain="a")
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    found, wanted = net({"a": x, "b": X})["a"], alone(y)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert calls


def test_hooks_and_layers_that_would_never_run_are_refused():
    net = share(plain())
    net.sharing.domains["b"].get_submodule("0").register_forward_hook(lambda *a: None)
    net(X, domain="a")
    with pytest.raises(RuntimeError, match=r"'domains.b.0' has a hook"):
        net(X, domain="b")
    other = nn.SyncBatchNorm.convert_sync_batchnorm(share(plain()))
    with pytest.raises(RuntimeError, match=r"'domains.a.1' was replaced by a SyncBatchNorm"):
        other(X, domain="a")


class Called(nn.Conv2d):
    def __call__(self, x):
        return 2 * super().__call__(x)


def patched(model):
    model[0].forward = lambda x, keep=model[0]: nn.Conv2d.forward(keep, x)


def closed_over(model):
    before = model[0].forward
    model[0].forward = lambda x: 2 * before(x)


def hook_closed_over(model):
    norm = model[1]
    norm.register_forward_hook(lambda m, args, out: out * norm.weight.mean())


@pytest.mark.parametrize("patch", [patched, closed_over, hook_closed_over])
def test_functions_that_hold_the_plain_layer_are_refused(patch):
    model = plain()
    patch(model)
    with pytest.raises(ValueError, match=r"layer '[01]' has the function.*holds a"):
        share(model)


def test_patches_that_follow_the_layer_run():
    def forward(self, x):
        return 3 * nn.Conv2d.forward(self, x)

    def padded(self, x, weight, bias):
        return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1)), weight, bias)

    for name, function in (("forward", forward), ("_conv_forward", padded)):
        model = plain()
        setattr(model[0], name, function.__get__(model[0]))
        check(share(model))
    model = plain()
    model[0] = Called(3, 6, 3)
    check(share(model))
    model = plain()

    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    parametrize.register_parametrization(model[1], "weight", Doubled())
    check(share(model))


def check(net):
    net.eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3)
    for domain in net.domains:
        torch.testing.assert_close(net(X, domain=domain), net.deploy(domain=domain)(X))
    torch.testing.assert_close(net({"a": X, "b": X})["b"], net(X, domain="b"))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"domains": ["a"]}, TypeError, r"domains=\['a'\]"),
        ({"domains": 0}, TypeError, "domains=0"),
        ({"domains": {"a": 2.0}}, ValueError, "classes=2.0"),
        ({"domains": {"a": True}}, ValueError, "classes=True"),
        ({"domains": {"a": 10**12}}, MemoryError, "'a': 1000000000000"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 2**70}, ValueError, f"seed={2**70}"),
        ({"plan": None}, TypeError, "plan=None"),
    ],
)
def test_wrong_arguments_are_named(change, error, match):
    model = plain()
    plan = wf.plan_sharing(model, "bottom", 0.5, example_input=X)
    with pytest.raises(error, match=match):
        wf.share(model, **{"domains": {"a": 2}, "plan": plan, **change})


@pytest.mark.parametrize("fraction", [float("nan"), -0.1, "0.5", 2])
def test_wrong_shares_are_named(fraction):
    with pytest.raises((TypeError, ValueError), match="fraction="):
        wf.plan_sharing(plain(), "bottom", fraction, example_input=X)


@pytest.mark.parametrize("seed", [-1, 2**70])
def test_seeds_of_further_domains(seed):
    with pytest.raises(ValueError, match=f"seed={seed}"):
        share(plain()).add_domain("c", 2, from_domain="a", seed=seed)


def test_weights_that_are_no_numbers_are_named():
    model = plain()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'0\.weight'.*NaN"):
        share(model)


def test_networks_without_memory():
    net = share(plain().to("meta"))
    assert all(p.is_meta for p in net.parameters())
    assert net(X.to("meta"), domain="b").shape == (6, 2)


def test_one_domain_in_one_graph(tmp_path):
    net = share(plain(padding=1, padding_mode="circular"), {"only": 3}).eval()
    report = to_exported_program(net, X, tmp_path / "net.pt2")
    assert max(report.max_relative_difference.values()) < 1e-5
    to_onnx(net, X, tmp_path / "net.onnx")


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_in_one_graph(mode, tmp_path):
    net = share(plain(padding=1, padding_mode=mode)).eval()
    report = to_onnx(net, X, tmp_path / "net.onnx")
    assert max(report.max_relative_difference.values()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_that_the_runtime_lacks_are_refused(dtype, tmp_path):
    with pytest.raises(ExportError, match="ONNX"):
        to_onnx(share(plain()).to(dtype), X.to(dtype), tmp_path / "net.onnx")
    assert not any(tmp_path.iterdir())


class Versioned(nn.Sequential):
    """Refuses tensors of an unknown version, as torchvision's MNASNet."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *arguments):
        assert local_metadata.get("version") == 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *arguments)


def test_modules_that_ask_for_their_version(tmp_path):
    model = Versioned(*plain())
    net = share(model).eval()
    wf.save(net, tmp_path)
    assert torch.equal(wf.load(tmp_path, model).eval()(X, domain="a"), net(X, domain="a"))
    state = {n: t for n, t in net.deploy(domain="a").state_dict().items()}  # noqa: C416
    assert max(net.fit(state, at={"domain": "a"}).values()) == 0


def test_deploy_keeps_how_a_domains_batch_norm_runs():
    net = share(plain()).train()
    norm = net.sharing.domains["a"].get_submodule("1")
    norm.eps, norm.momentum = 0.7, None
    norm.eval()
    frozen, other = net.deploy(domain="a"), net.deploy(domain="b")
    assert not frozen[1].training and frozen[0].training and frozen[4].training
    assert other[1].training and (other[1].eps, other[1].momentum) == (1e-5, 0.1)
    assert (frozen[1].eps, frozen[1].momentum) == (0.7, None)
    torch.testing.assert_close(frozen(X), net(X, domain="a"))
    torch.testing.assert_close(frozen.eval()(X), net.eval()(X, domain="a"))
    wide = wf.expand(net, rate=2, where="domains.a.*").deploy({"domain": "a"})
    assert wide[1].eps == 0.7


@pytest.mark.parametrize("strategy", ["bottom", "top", "random", {"0": [True, False] * 3}])
def test_another_default_device_changes_no_plan_and_no_net(strategy):
    amount = {"fraction": 0.5} if isinstance(strategy, str) else {}
    model, inputs = plain(), X
    plan = wf.plan_sharing(model, strategy, **amount, example_input=inputs)
    net = wf.share(model, {"a": 3, "b": 2}, plan).eval()
    wanted = net(X, domain=["a", "b"] * 3)
    with torch.device("meta"):
        assert wf.plan_sharing(model, strategy, **amount, example_input=inputs) == plan
        again = wf.share(model, {"a": 3, "b": 2}, plan).eval()
        assert torch.equal(again(inputs, domain=["a", "b"] * 3), wanted)
        assert torch.equal(
            again(inputs, domain=["a"] * 5 + ["b"])[:, :2], net(X, domain=["a"] * 5 + ["b"])[:, :2]
        )
        bare = plain()
        assert (
            wf.plan_sharing(bare, strategy, **amount, example_input=torch.empty(2, 3, 8, 8)) == plan
        )
        shared = wf.share(bare, {"a": 3, "b": 2}, plan)
        assert shared(torch.empty(2, 3, 8, 8), domain="b").shape == (2, 2)


@pytest.mark.parametrize("layer", ["0", "4"])
@pytest.mark.parametrize(
    "how",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
        torch.nn.utils.parametrizations.orthogonal,
    ],
)
def test_layers_whose_weight_is_computed_are_refused_by_name(how, layer):
    model = plain()
    how(model.get_submodule(layer))
    for strategy in ("bottom", {"0": [True] * 6}):
        amount = {"fraction": 0.5} if isinstance(strategy, str) else {}
        with pytest.raises(ValueError, match=f"layer '{layer}'.*parametrization"):
            wf.plan_sharing(model, strategy, **amount, example_input=X)


def flat():
    """Batch norm over the batch alone: one image has no variance."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 8), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 3))


@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (1, 2)])
def test_one_image_of_a_domain_is_normalised_with_no_other_domains(counts):
    """Refused as the plain network refuses it; not normalised over images of other domains."""
    net = share(flat()).train()
    a, b = (X[:count] for count in counts)
    names = ["a"] * counts[0] + ["b"] * counts[1]
    before = [buffer.clone() for buffer in net.buffers()]
    calls = [lambda: net({"a": a, "b": b}), lambda: net(torch.cat([a, b]), domain=names)]
    for call in calls:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            call()
    if counts == (1, 1):
        assert all(map(torch.equal, before, net.buffers()))
    assert net.eval()({"a": a, "b": b})["b"].shape == (counts[1], 2)


def test_settings_of_a_domains_batch_norm_are_handed_on_or_refused_by_name(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    plan = wf.plan_sharing(model, "bottom", 0.5, example_input=torch.zeros(1, 3, 8, 8))
    net = wf.share(model, {"a": 2, "b": 2}, plan).eval()
    norm = net.sharing.domains["a"].get_submodule("1")
    norm.eps = 0.5
    net.add_domain("c", 2, from_domain="a")
    x = torch.randn(4, 3, 8, 8)
    assert net.sharing.domains["c"].get_submodule("1").eps == 0.5
    torch.testing.assert_close(net.deploy(domain="c")(x), net(x, domain="c"))
    with pytest.raises(ValueError, match=r"domains\.a\.1.*eps=0\.5"):
        wf.save(net, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
