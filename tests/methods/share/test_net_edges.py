"""SharedNet beyond the common case: odd batch norms, frozen domains, hold, charts above, ties."""

import copy

import pytest
import torch
from torch import nn

import weightfold as wf


class Twice(nn.Module):
    """A batch norm that runs twice in a forward."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3), norm, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.norm(self.norm(self.conv(x)).relu() + 1).mean((2, 3)))


def make(norm=None, twice=False, classes=None, **options):
    torch.manual_seed(0)
    norm = norm or nn.BatchNorm2d(4)
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    model = Twice(norm) if twice else plain
    plan = wf.plan_sharing(model, num_filters=2, example_input=torch.zeros(1, 2, 6, 6), **options)
    return wf.share(model, classes or {"a": 3, "b": 2}, plan).double()


def images(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 6, 6, generator=generator, dtype=torch.float64)


def same(one, other):
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("stats", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("twice", [True, False])
def test_batch_norms_of_every_sort_are_a_domains_own(affine, stats, momentum, twice):
    norm = nn.BatchNorm2d(4, momentum=momentum, affine=affine, track_running_stats=stats)
    net = make(norm, twice).train()
    for seed in range(2):
        together = {"a": images(seed=seed), "b": 3 * images(seed=seed + 9) + 1}
        plain = {name: net.deploy(domain=name).train() for name in together}
        for name, logits in net(together).items():
            torch.testing.assert_close(logits, plain[name](together[name]))
            found, wanted = net.deploy(domain=name).state_dict(), plain[name].state_dict()
            for key in wanted:  # without a momentum to need it, a forward counts as one batch
                if "num_batches" not in key or momentum is None:
                    torch.testing.assert_close(found[key], wanted[key])


def test_no_image_is_repeated_where_others_depend_on_it():
    net = make(nn.BatchNorm2d(4, track_running_stats=False)).eval()
    x = images(5)
    logits = net(x, domain=["a", "a", "a", "b", "b"])
    torch.testing.assert_close(logits[3:, :2], net(x[3:], domain="b"))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_inside_hold_are_those_outside(momentum):
    net = make(nn.BatchNorm2d(4, momentum=momentum)).train()
    other = copy.deepcopy(net)

    def steps(net):
        net({"a": images(), "b": images(seed=1)})["a"].sum().backward()
        net(5 * images(seed=2), domain="a").sum().backward()
        net({"a": 2 * images(seed=3), "b": images(seed=4)})["a"].sum().backward()

    steps(other)
    with net.hold():
        steps(net)
    same(net, other)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_one_backward_of_one_domain_and_of_a_mixture():
    net = make().train()
    other = copy.deepcopy(net)
    x = images()
    (net(x, domain="a").sum() + net({"a": x, "b": x})["b"].square().sum()).backward()
    other(x, domain="a").sum().backward()
    other({"a": x, "b": x})["b"].square().sum().backward()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("frozen", ["a", "b"])
def test_a_frozen_domain_beside_others(frozen):
    net = make().train()
    net.sharing.domains[frozen].requires_grad_(False)
    out = net({"a": images(), "b": images(seed=1)})
    sum(logits.square().sum() for logits in out.values()).backward()
    for name, p in net.named_parameters():
        assert (p.grad is None) == name.startswith(f"charts.0.domains.{frozen}.")


@pytest.mark.parametrize("where", ["domains.a.0", "shared.0"])
def test_several_domains_train_below_another_chart(where):
    above = wf.expand(make().train(), where=where)
    net = above.lower({"domain": "a"})
    x = {"a": images(), "b": images(seed=1)}
    logits = above(x)
    for name, wanted in net(x).items():
        torch.testing.assert_close(logits[name], wanted)
    sum(part.square().sum() for part in logits.values()).backward()
    assert all(p.grad is not None for p in above.parameters())
    for name in x:
        at = {"domain": name}
        same(above.deploy(at), net.deploy(at))


@pytest.mark.parametrize("classes", [1, 3])
def test_fit_leaves_the_rows_of_a_shared_head_that_the_domain_lacks(classes):
    net = make(classes={"a": 5, "b": 5}, head="shared")
    net.sharing.classes["a"] = classes
    plain = net.deploy(domain="a")
    before = net.sharing.shared.get_submodule("5").weight.detach().clone()
    with torch.no_grad():
        plain[5].weight.add_(1)
    assert max(net.fit(plain.state_dict(), at={"domain": "a"}).values()) == 0
    moved = net.sharing.shared.get_submodule("5").weight - before
    assert torch.equal(moved[classes:], torch.zeros_like(moved[classes:]))
    torch.testing.assert_close(moved[:classes], torch.ones_like(moved[:classes]))


def test_a_domain_beside_a_mapping_is_refused():
    with pytest.raises(ValueError, match="domain='b', but x is by domain"):
        make()({"a": images()}, domain="b")


@pytest.mark.parametrize("name", ["items", "train", "float", "training"])
def test_names_that_modules_have(name):
    with pytest.raises(ValueError, match=f"'{name}' is no name of a domain"):
        make(classes={name: 3})
    with pytest.raises(ValueError, match=f"'{name}' is no name of a domain"):
        make().add_domain(name, 2, from_domain="a")


def test_tied_layers_are_refused_before_anything_runs():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(72, 3))
    model[1].weight = model[0].weight
    example = torch.zeros(1, 2, 6, 6)
    with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' are one tied tensor"):
        wf.share(model, {"a": 3}, wf.plan_sharing(model, num_filters=1, example_input=example))
    net = wf.share(model, {"a": 3}, wf.plan_sharing(model, fraction=0, example_input=example))
    assert net(example, domain="a").shape == (1, 3)
