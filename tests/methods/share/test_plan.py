"""Which filters a plan takes: order, budgets, masks, and networks of every kind."""

import json
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from weightfold.methods.share.filters import mask_of, ranges_of, take_filters, take_share
from weightfold.methods.share.layers import Layer, find_layers
from weightfold.methods.share.plan import Plan, SharingOptions, plan_sharing

IMAGE = torch.zeros(2, 3, 16, 16)
FRACTIONS = st.integers(0, 1000).map(lambda n: n / 1000)
STRATEGIES = st.sampled_from(["bottom", "top", "random"])
LAYERS = st.lists(
    st.builds(
        Layer,
        path=st.uuids().map(str),
        filters=st.integers(1, 12),
        weights_per_filter=st.integers(1, 40),
        macs_per_filter=st.integers(1, 500),
        groups=st.just(1),
    ),
    min_size=1,
    max_size=6,
)


class Backwards(nn.Module):
    """Registered last to first; one layer runs twice, one never."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 5)
        self.never = nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(8, 8, 1, bias=False)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.a = nn.Conv2d(3, 8, 3, padding=1, stride=2)

    def forward(self, x):
        x = self.b(self.norm(self.a(x)))
        x = self.c(self.c(x))
        return self.head(self.last(x).mean((2, 3)))


def own_positions(layers, own):
    """The own filters' positions in the net, in execution order."""
    flags = [flag for x in layers for flag in own.get(x.path, (False,) * x.filters)]
    return [i for i, flag in enumerate(flags) if flag]


def test_execution_order_and_multiply_adds():
    plan = plan_sharing(Backwards(), "bottom", num_filters=12, example_input=IMAGE)
    assert [x.path for x in plan.layers] == ["a", "b", "c", "last"]
    assert [x.weights_per_filter for x in plan.layers] == [28, 37, 8, 73]
    assert [x.macs_per_filter for x in plan.layers] == [64 * 27, 64 * 36, 2 * 64 * 8, 64 * 72]
    assert [x.groups for x in plan.layers] == [1, 2, 1, 1]
    assert plan.own == {"a": (True,) * 8, "b": (True,) * 4 + (False,) * 4}
    assert (plan.head, plan.norms, plan.other_macs) == ("head", ("norm",), 0)
    assert plan.classifier == Layer("head", 5, 9, 8, 1)
    top = plan_sharing(Backwards(), "top", num_filters=10, example_input=IMAGE)
    assert top.own == {"c": (False,) * 6 + (True,) * 2, "last": (True,) * 8}


def test_tied_convolutions_are_one_layer():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(2)), nn.Flatten(), nn.Linear(768, 2))
    model[1].weight, model[1].bias = model[0].weight, model[0].bias
    plan = plan_sharing(model, fraction=1, example_input=IMAGE)
    assert plan.layers == (Layer("0", 3, 4, 2 * 256 * 3, 1),)
    assert plan.account({"a": 2}).total.parameters == sum(p.numel() for p in model.parameters())


def test_a_weight_that_is_tied_to_something_else_stays_shared():
    model = Backwards()
    model.spare = model.last.weight  # at the root, which comes before its layers
    plan = plan_sharing(model, fraction=1, example_input=IMAGE)
    assert list(plan.own) == ["a", "b", "c"]
    assert plan.account({"x": 5}).total.parameters == sum(p.numel() for p in model.parameters())


def test_the_model_and_the_global_generator_stay_as_they_were():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(3)
    )
    model(IMAGE)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    plan_sharing(model, "random", 0.5, seed=3, example_input=IMAGE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[n], tensor) for n, tensor in model.state_dict().items())


def test_a_network_is_looked_at_once_for_many_plans():
    class Counts(Backwards):
        runs = 0

        def forward(self, x):
            Counts.runs += 1
            return super().forward(x)

    layers = find_layers(Counts(), IMAGE)
    runs = Counts.runs
    for how in ({"strategy": "random", "seed": 3}, {"budget": "macs"}):
        plan = plan_sharing(Counts().to("meta"), fraction=0.5, layers=layers, **how)
        assert plan == plan_sharing(Backwards(), fraction=0.5, example_input=IMAGE, **how)
    assert Counts.runs == runs


@pytest.mark.parametrize("reads", [False, True])
def test_plans_are_made_in_inference_mode(reads):
    class Reads(Backwards):
        def forward(self, x):
            assert not reads or x.sum().item() == 0
            return super().forward(x)

    with torch.inference_mode():
        plan = plan_sharing(Reads(), fraction=0.5, example_input=torch.zeros(1, 3, 16, 16))
    assert plan == plan_sharing(Backwards(), fraction=0.5, example_input=IMAGE)


def test_a_model_that_reads_values_runs_on_zeros():
    class Reads(Backwards):
        def forward(self, x):
            assert x.sum().item() == 0
            return super().forward(x + 0 * torch.rand_like(x))

    model = Reads()
    state = torch.get_rng_state()
    plan = plan_sharing(model, fraction=0.3, example_input=torch.ones(1, 3, 16, 16))
    assert torch.equal(torch.get_rng_state(), state)
    assert plan.layers == plan_sharing(Backwards(), fraction=0.3, example_input=IMAGE).layers
    assert model.norm.num_batches_tracked == 0


@given(LAYERS, FRACTIONS, FRACTIONS, STRATEGIES, st.sampled_from(["weights", "macs"]))
def test_a_budget_is_never_exceeded_and_missed_by_less_than_a_filter(layers, a, b, strategy, kind):
    attribute = {"weights": "weights_per_filter", "macs": "macs_per_filter"}[kind]
    costs = [getattr(x, attribute) for x in layers for _ in range(x.filters)]

    def taken(fraction):
        return own_positions(layers, take_share(layers, strategy, 7, fraction, kind))

    small, large = sorted((a, b))
    chosen = []
    for fraction in (small, large):
        budget = Fraction(str(fraction)) * sum(costs)
        try:
            own = taken(fraction)
        except ValueError:
            assert 0 < budget < max(costs)
            own = []
        spent = sum(costs[i] for i in own)
        assert spent <= budget
        assert len(own) == len(costs) or budget - spent < max(costs)
        if strategy == "bottom":
            assert own == list(range(len(own)))
            assert len(own) == len(costs) or spent + costs[len(own)] > budget
        if strategy == "top":
            assert own == list(range(len(costs) - len(own), len(costs)))
            assert len(own) == len(costs) or spent + costs[-len(own) - 1] > budget
        chosen.append(own)
    assert set(chosen[0]) <= set(chosen[1])
    assert taken(0) == []
    assert taken(1) == list(range(len(costs)))


def test_a_fraction_is_the_decimal_it_is_written_as():
    layers = [Layer("a", 100, 1, 1, 1)]
    for percent in range(1, 101):
        assert sum(take_share(layers, "bottom", 0, percent / 100, "weights")["a"]) == percent


@given(LAYERS, STRATEGIES, st.data())
def test_num_filters_takes_that_many(layers, strategy, data):
    total = sum(layer.filters for layer in layers)
    number = data.draw(st.integers(0, total))
    own = take_filters(layers, strategy, 1, number)
    assert sum(map(sum, own.values())) == number
    assert all(any(mask) for mask in own.values())


def test_every_filter_is_as_likely_in_a_random_plan():
    layers = [Layer("a", 3, 50, 1, 1), Layer("b", 5, 1, 1, 1)]
    draws = 600
    counts = [0] * 8
    for seed in range(draws):
        for i in own_positions(layers, take_filters(layers, "random", seed, 2)):
            counts[i] += 1
    deviation = (draws * 0.25 * 0.75) ** 0.5
    assert all(abs(count - draws / 4) < 4 * deviation for count in counts)
    same = [take_filters(layers, "random", 5, 2) for _ in range(2)]
    assert same[0] == same[1]


@st.composite
def small_networks(draw):
    """Convolutions dense, grouped and depthwise, with and without bias and batch norm."""
    layers, channels = [], 4
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.sampled_from([4, 8, 12]))
        groups = draw(st.sampled_from([g for g in (1, 2, 4, channels) if width % g == 0]))
        size = draw(st.sampled_from([1, 3]))
        bias = draw(st.booleans())
        layers.append(nn.Conv2d(channels, width, size, padding=1, groups=groups, bias=bias))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(width, affine=draw(st.booleans())))
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7))


@settings(max_examples=15, deadline=None)
@given(small_networks(), st.floats(0.3, 1), STRATEGIES)
def test_counts_are_those_of_the_model(model, fraction, strategy):
    plan = plan_sharing(model, strategy, fraction, example_input=torch.zeros(1, 4, 8, 8))
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    whole = sum(p.numel() for m in convolutions.values() for p in m.parameters())
    own = sum(p[list(plan.own[n])].numel() for n in plan.own for p in convolutions[n].parameters())
    assert own / whole == pytest.approx(plan.weights_share, abs=1e-12)
    assert own <= Fraction(str(fraction)) * whole
    everything = sum(p.numel() for p in model.parameters())
    account = plan.account({"a": 7, "b": 7, "c": 7})
    assert account.independent.parameters == 3 * everything
    assert account.total.parameters == 3 * everything - 2 * (whole - own)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        "mobilenet_v3_small",
        "resnet18",
        "resnext50_32x4d",
        "mnasnet0_5",
        "squeezenet1_1",
        "shufflenet_v2_x0_5",
        "efficientnet_b0",
        "regnet_y_400mf",
        "googlenet",
    ],
)
def test_torchvision_families(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    if name != "regnet_y_400mf":  # whose constructor computes
        with torch.device("meta"):
            model = getattr(models, name)(**options)
    else:
        model = models.regnet_y_400mf()
    layers = find_layers(model)
    for strategy in ("bottom", "top", "random"):
        for budget in ("weights", "macs"):
            plan = plan_sharing(model, strategy, 0.2, budget=budget, layers=layers)
            share = plan.weights_share if budget == "weights" else plan.macs_share
            assert 0.19 < share <= 0.2
            assert plan.classifier.filters == 1000
            plan.check(model)


def test_squeeze_excite_and_downsample_take_part():
    with torch.device("meta"):
        small, residual = models.mobilenet_v3_small(), models.resnet18()
    paths = [layer.path for layer in plan_sharing(small, fraction=0).layers]
    assert paths[1:5] == [f"features.1.block.{p}" for p in ("0.0", "1.fc1", "1.fc2", "2.0")]
    names = [layer.path for layer in plan_sharing(residual, fraction=0).layers]
    assert names.index("layer2.0.conv2") + 1 == names.index("layer2.0.downsample.0")


def test_masks_of_the_user():
    mask = torch.tensor([True, False] * 4)
    plan = plan_sharing(Backwards(), {"b": mask, "a": [False] * 8}, example_input=IMAGE)
    assert plan.own == {"b": (True, False) * 4}
    assert plan.choice["strategy"] == "masks"


def test_batch_norms_and_head_can_stay_shared():
    with torch.device("meta"):
        model = models.resnet18()
    plan = plan_sharing(model, fraction=0, options=SharingOptions(shared_norms="*.downsample.1"))
    assert len(plan.norms) == 17
    assert len(plan.choice["shared_norms"]) == 3
    plan = plan_sharing(model, fraction=0, options=SharingOptions(bn="shared", head="shared"))
    assert (plan.norms, plan.shared_head) == ((), True)


def test_a_batch_norm_without_tensors_is_owned_so_that_domains_are_normalised_apart():
    empty = nn.BatchNorm2d(6, affine=False, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), empty, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plan = plan_sharing(model.append(nn.Linear(6, 2)), fraction=0, example_input=IMAGE)
    assert plan.norms == ("1",)
    assert plan.account({"a": 2}).domains["a"].bytes == 4 * (6 * 2 + 2)


def test_head_path_names_another_classifier():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.extend([nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4)])
    assert plan_sharing(model, fraction=0, example_input=IMAGE).head == "5"
    plan = plan_sharing(
        model, fraction=0, example_input=IMAGE, options=SharingOptions(head_path="3")
    )
    assert (plan.head, plan.other_macs) == ("3", 16)


def test_other_dimensions():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(24, 3))
    plan = plan_sharing(model, fraction=0.5, example_input=torch.zeros(1, 2, 8))
    assert plan.own == {"0": (True, True, False, False)}


@given(st.lists(st.booleans(), max_size=30))
def test_ranges_round_trip(mask):
    assert mask_of(ranges_of(mask), len(mask)) == tuple(mask)


@pytest.mark.parametrize(
    "ranges", [[[0, 5]], [[2, 2]], [[-1, 2]], [[2, 3], [0, 1]], [[0, 1], [1, 2]]]
)
def test_ranges_that_are_none(ranges):
    with pytest.raises(ValueError, match="ranges"):
        mask_of(ranges, 4)


def test_text():
    text = str(plan_sharing(Backwards(), "top", num_filters=10, example_input=IMAGE))
    assert "Plan top: 10 of 32 filters in 2 of 4 convolutions" in text
