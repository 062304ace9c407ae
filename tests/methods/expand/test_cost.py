"""The cost model against hand formulas, brute force and the paper's Table 6."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import weightfold as wf
from weightfold.methods.expand.algebra import orders
from weightfold.methods.expand.cost import LayerCost, chain_cost
from weightfold.nets import build
from weightfold.trace import trace


def chain_of(layer, **options):
    return wf.expand(nn.Sequential(layer), where="0", **options).charts[0].chain("0")


def test_cl_by_hand():
    layer = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    cost = chain_cost(chain_of(layer, rate=2), (4, 3, 16, 16))  # widths 3, 6, 16, 8
    out, padded = 4 * 8 * 8, 4 * 20 * 20
    assert cost.plain == out * 8 * 3 * 25
    assert cost.chain == padded * 6 * 3 + out * 16 * 6 * 25 + out * 8 * 16
    assert cost.orders == {
        "(W3 (W2 W1))": 16 * 6 * 3 * 25 + 8 * 16 * 3 * 25,
        "((W3 W2) W1)": 8 * 16 * 6 * 25 + 8 * 6 * 3 * 25,
    }
    assert cost.fold == 16 * 6 * 3 * 25 + 8 * 16 * 3 * 25
    assert cost.cheaper == "fold"


def test_grouped_ck_by_hand():
    layer = nn.Conv2d(4, 6, 7, padding=3, groups=2, bias=False)
    cost = chain_cost(chain_of(layer, rate=1, conv="ck"), (2, 4, 10, 12))  # widths 4, 4, 6, 6
    assert cost.plain == 2 * 120 * 6 * 2 * 49
    sizes = (14 * 16, 12 * 14, 10 * 12)
    assert cost.chain == 2 * 9 * (sizes[0] * 4 * 2 + sizes[1] * 6 * 2 + sizes[2] * 6 * 3)
    assert cost.orders == {
        "(W3 (W2 W1))": 6 * 2 * 2 * 81 + 6 * 3 * 2 * 25 * 9,
        "((W3 W2) W1)": 6 * 3 * 2 * 81 + 6 * 2 * 2 * 25 * 9,
    }


def test_fc_by_hand():
    chain = chain_of(nn.Linear(10, 6), rate=1.5, conv=None, linear="fc")  # widths 10, 15, 9, 6
    cost = chain_cost(chain, (5, 7, 10))
    assert cost.plain == 35 * 60
    assert cost.chain == 35 * (150 + 135 + 54)
    assert cost.orders == {
        "(W3 (W2 W1))": 9 * 15 * 10 + 6 * 9 * 10,
        "((W3 W2) W1)": 6 * 9 * 15 + 6 * 15 * 10,
    }


@pytest.mark.parametrize("dims", [1, 3])
def test_other_dimensions(dims):
    layer = (nn.Conv1d, None, nn.Conv3d)[dims - 1](2, 3, 2, bias=False)
    cost = chain_cost(chain_of(layer, rate=1), (1, 2, *[4] * dims))
    assert cost.plain == 3**dims * 6 * 2**dims
    assert cost.chain == 4**dims * 4 + 3**dims * (6 * 2**dims + 9)


def merges(shapes):
    """Cost of every way to merge neighbours until one weight is left."""
    if len(shapes) == 1:
        return {0}
    found = set()
    for i, (a, b) in enumerate(pairwise(shapes)):
        kernel = [x + y - 1 for x, y in zip(a[2:], b[2:], strict=True)]
        cost = b[0] * b[1] * a[1] * math.prod(a[2:]) * math.prod(b[2:])
        rest = merges([*shapes[:i], (b[0], a[1], *kernel), *shapes[i + 2 :]])
        found |= {cost + more for more in rest}
    return found


@pytest.mark.parametrize(
    ("shapes", "count"),
    [
        (((12, 3, 1, 1), (32, 12, 7, 7), (8, 32, 1, 1)), 2),
        (((12, 3, 3, 3), (8, 12, 3, 3)), 1),
        (((12, 3, 3, 3), (32, 12, 3, 3), (30, 32, 1, 3), (8, 30, 1, 3)), 5),
        (((40, 10), (24, 40), (24, 24), (24, 24), (6, 24)), 14),
        (((8, 1, 3), (16, 4, 3), (8, 8, 3)), 2),
    ],
)
def test_orders_against_brute_force(shapes, count):
    found = orders(shapes)
    costs = [cost for cost, _, _ in found]
    assert set(costs) == merges(list(shapes))
    assert costs == sorted(costs)
    assert len(found) == len({order for _, order, _ in found}) == count
    kernel = [sum(s[a] - 1 for s in shapes) + 1 for a in range(2, len(shapes[0]))]
    assert {tuple(shape) for _, _, shape in found} == {(shapes[-1][0], shapes[0][1], *kernel)}


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (nn.Conv2d(8, 16, 7, bias=False), {}),
        (nn.Conv2d(16, 8, 7, bias=False), {}),
        (nn.Conv2d(16, 8, 3, bias=False), {"rate": 0.5}),
        (nn.Linear(64, 8, False), {"linear": "fc", "linear_depth": 5}),
        (nn.Linear(8, 64, False), {"linear": "fc", "linear_depth": 4}),
        (nn.Conv2d(6, 4, 7, bias=False), {"conv": "ck", "rate": 2}),
    ],
)
def test_the_fold_runs_the_cheapest_order(layer, options):
    chain = chain_of(layer, **options)
    with FlopCounterMode(display=False) as counter:
        chain.fold()
    shapes = tuple(tuple(f.weight.shape) for f in chain)
    assert counter.get_total_flops() // 2 == min(merges(list(shapes)))


# What else the printed counts hold: biases, 2 per element of batch norm, fc1 and fc2.
ELEMENTS = 8 * 32**2 + 16 * 16**2 + 32 * 8**2 + 64 * 4**2
AROUND = 2 * ELEMENTS + 256 * 64 + 64 * 10


def smallnet_b_costs(batch, **options):
    model = build("smallnet_b,kernel_size=7", num_classes=10)
    shapes = trace(model, torch.empty(batch, 3, 32, 32)).inputs
    net = wf.expand(model, **options)
    return {
        path: chain_cost(net.charts[0].chain(path), shapes[path])
        for path in shapes
        if path in net.charts[0].config()["layers"]
    }, net


def bias_adds(net):
    """One per output element of each factor: 1 image of 32 x 32 halved by pooling, padding 3."""
    total = 0
    for path, size in zip(net.charts[0].config()["layers"], (32, 16, 8, 4), strict=True):
        side = size + 6
        for factor in net.charts[0].chain(path):
            side -= factor.kernel_size[0] - 1
            total += factor.out_channels * side**2
    return total


@pytest.mark.parametrize(
    ("conv", "rate", "counted", "printed"),
    [
        ("cl", 2, 25.12, 25.16),
        ("cl", 4, 98.36, 98.39),
        ("cl", 8, 389.32, 389.35),
        ("ck", 2, 14.35, 14.38),
        ("ck", 4, 42.61, 42.64),
        ("ck", 8, 141.07, 141.10),
    ],
)
def test_macs_of_table_6(conv, rate, counted, printed):
    """The paper's tool counts 0.03 to 0.04 million more throughout: ReLU and pooling."""
    costs, net = smallnet_b_costs(1, conv=conv, rate=rate)
    millions = (sum(c.chain for c in costs.values()) + bias_adds(net) + AROUND) / 1e6
    assert abs(millions - counted) <= 0.005 + 1e-9
    assert 0.02 <= printed - millions <= 0.045
    plain = (sum(c.plain for c in costs.values()) + ELEMENTS + AROUND) / 1e6
    assert abs(plain - 6.08) <= 0.005
    assert 0.02 <= 6.12 - plain <= 0.045


@pytest.mark.parametrize(
    ("conv", "rate", "ratio"),
    [("cl", 2, 1.04), ("cl", 4, 1.11), ("cl", 8, 1.38), ("ck", 4, 1.30), ("ck", 8, 1.85)],
)
def test_forward_of_a_batch_of_128_folded_against_compact(conv, rate, ratio):
    """Worked out by hand for the best order when the method was planned."""
    costs, _ = smallnet_b_costs(128, conv=conv, rate=rate)
    plain = sum(c.plain for c in costs.values()) + 128 * (ELEMENTS + AROUND)
    assert abs((plain + sum(c.fold for c in costs.values())) / plain - ratio) <= 0.006


def test_cheaper_counts_the_layer_and_the_fold():
    assert LayerCost(plain=100, chain=109, orders={"a": 10, "b": 30}).cheaper == "chain"
    assert LayerCost(plain=100, chain=111, orders={"a": 10, "b": 30}).cheaper == "fold"


def test_auto_folds_the_small_net_at_batch_128():
    model = build("smallnet_b", num_classes=10)
    net = wf.expand(model, linear="fc", example_input=torch.empty(128, 3, 32, 32))
    layers = net.charts[0].config()["layers"]
    assert [layers[f"conv{i}"]["execution"] for i in (1, 2, 3, 4)] == ["fold"] * 4
    macs = layers["conv2"]["macs"]
    assert macs["plain"] == 128 * 256 * 16 * 8 * 49
    assert {"chain", "(W3 (W2 W1))", "((W3 W2) W1)"} < macs.keys()


def test_auto_runs_the_chain_where_that_is_cheaper():
    """One image, large rate, 1 x 1 outputs: composing kernels costs more than two more layers."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 64, 7, stride=8),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.Linear(32, 3),
    )
    x = torch.randn(1, 3, 14, 14)
    net = wf.expand(model, 6, linear="fc", example_input=x)
    layers = net.charts[0].config()["layers"]
    assert {p: layer["execution"] for p, layer in layers.items()} == {
        "0": "fold",
        "2": "chain",
        "4": "chain",
    }
    for layer in layers.values():
        macs = dict(layer["macs"])
        plain, chain = macs.pop("plain"), macs.pop("chain")
        cheaper = "chain" if chain < plain + min(macs.values()) else "fold"
        assert layer["execution"] == cheaper
    assert isinstance(net.model[2], wf.Chain)
    assert isinstance(net.model[4], wf.Chain)
    assert type(net.model[0]) is nn.Conv2d
    assert net.verify(x).worst <= 1e-12


def test_auto_without_an_example_folds():
    net = wf.expand(nn.Sequential(nn.Conv2d(3, 64, 3)), 8)
    assert net.charts[0].config()["layers"]["0"]["execution"] == "fold"
    assert net.charts[0].config()["layers"]["0"]["macs"] is None


def test_auto_over_another_chart_counts_the_same():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    x = torch.empty(2, 3, 8, 8)
    masked = wf.mask(model, {"2.weight": torch.ones(4, 288)})
    macs = wf.expand(masked, example_input=x).charts[0].config()["layers"]["model.0"]["macs"]
    assert macs == wf.expand(model, example_input=x).charts[0].config()["layers"]["0"]["macs"]


def test_input_shapes_leave_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    shapes = trace(model, torch.randn(5, 3, 4, 4)).inputs
    assert (shapes["0"], shapes["3"]) == ((5, 3, 4, 4), (5, 16))
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_layers_called_by_keyword_are_counted():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(input=x)

    assert trace(Keyword(), torch.randn(1, 3, 5, 5)).inputs["conv"] == (1, 3, 5, 5)


def test_long_chains_are_folded_in_the_cheapest_order():
    rng = torch.Generator().manual_seed(0)
    widths = [int(w) for w in torch.randint(1, 9, (16,), generator=rng)]
    shapes = tuple((b, a) for a, b in pairwise(widths))
    # The known recursion for the product of matrices.
    least = {(i, i): 0 for i in range(15)}
    for span in range(1, 15):
        for i in range(15 - span):
            j = i + span
            least[i, j] = min(
                least[i, k] + least[k + 1, j] + widths[i] * widths[k + 1] * widths[j + 1]
                for k in range(i, j)
            )
    assert [cost for cost, *_ in orders(shapes)] == [least[0, 14]]
    net = wf.expand(nn.Sequential(nn.Conv2d(2, 3, 31, padding=15)), 2, conv="ck", seed=0)
    assert net.verify(torch.randn(1, 2, 8, 8)).worst < 1e-12
