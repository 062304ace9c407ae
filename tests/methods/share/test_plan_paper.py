"""Table 1 of Zhang, Yang, Liu, Guan: the parameter column, and the compute it hides."""

import math
from functools import cache
from statistics import mean, stdev

import pytest
import torch
from torchvision import models

from weightfold.methods.share.filters import take_filters
from weightfold.methods.share.layers import find_layers
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.presets import PAPER_FILTERS, PAPER_PARAMETERS, PAPER_SHARED_NORMS

HEADS = dict.fromkeys(("aircraft", "birds", "cars", "dogs", "indoor"), 1000)


@cache
def network(name):
    with torch.device("meta"):
        return getattr(models, name)()


@cache
def layers(name):
    return find_layers(network(name))


def plan(name, strategy="bottom", fraction=None, **options):
    return plan_sharing(network(name), strategy, fraction, layers=layers(name), **options)


def paper_plan(name, strategy):
    norms = PAPER_SHARED_NORMS.get(name)
    return plan(name, strategy, num_filters=PAPER_FILTERS[name][strategy], shared_norms=norms)


def printed(parameters):
    """Millions with two decimals, truncated as in the table."""
    return f"{parameters // 10_000 / 100:.2f}"


@pytest.mark.parametrize("strategy", ["bottom", "top"])
@pytest.mark.parametrize("name", PAPER_FILTERS)
def test_the_table_to_the_printed_digit(name, strategy):
    account = paper_plan(name, strategy).account(HEADS)
    assert printed(account.total.parameters) == PAPER_PARAMETERS[name][strategy]
    assert printed(account.independent.parameters) == PAPER_PARAMETERS[name]["independent"]


@pytest.mark.parametrize("name", PAPER_FILTERS)
def test_neither_a_kept_copy_nor_an_exact_fifth_gives_the_table(name):
    cells = [PAPER_PARAMETERS[name][strategy] for strategy in ("bottom", "top")]
    for strategy, cell in zip(("bottom", "top"), cells, strict=True):
        kept = paper_plan(name, strategy).account(HEADS, keep_shared_copy=True)
        assert printed(kept.total.parameters) != cell
        fifth = plan(name, strategy, 0.2).account(HEADS)
        assert printed(fifth.total.parameters) != cell


@pytest.mark.parametrize("name", PAPER_FILTERS)
def test_the_random_rows_as_a_range(name):
    random = paper_plan(name, "random")
    number, seeds = PAPER_FILTERS[name]["random"], 100
    costs = {layer.path: layer.weights_per_filter for layer in random.layers}
    own = [
        sum(sum(mask) * costs[path] for path, mask in masks.items())
        for masks in (take_filters(random.layers, "random", s, number) for s in range(seeds))
    ]
    # Drawing without replacement; within 4 standard errors of the mean and of the sd.
    each = [layer.weights_per_filter for layer in random.layers for _ in range(layer.filters)]
    expected = number * mean(each)
    sd = math.sqrt(number * (1 - number / len(each))) * stdev(each)
    assert abs(mean(own) - expected) < 4 * sd / math.sqrt(seeds)
    assert abs(stdev(own) / sd - 1) < 4 / math.sqrt(2 * seeds)
    # The cell is the mean of two networks, truncated: it is within 2 sd of what is expected.
    empty = plan(name, num_filters=0, shared_norms=PAPER_SHARED_NORMS.get(name))
    total = empty.account(HEADS).total.parameters + (len(HEADS) - 1) * expected
    allowed = 2 * (len(HEADS) - 1) * sd / math.sqrt(2)
    cell = float(PAPER_PARAMETERS[name]["random"]) * 1e6
    assert total - allowed < cell + 10_000
    assert cell < total + allowed


@pytest.mark.parametrize(
    ("name", "filters", "compute"),
    [
        ("mobilenet_v2", (7100, 1309), (64.3, 7.2)),
        ("resnet50", (9569, 3530), (61.9, 5.6)),
        ("mnasnet1_0", (7519, 1456), (61.6, 9.6)),
        ("squeezenet1_0", (1036, 254), (56.7, 3.4)),
    ],
)
def test_a_fifth_of_the_weights_is_most_of_the_compute_at_the_bottom(name, filters, compute):
    plans = [plan(name, strategy, 0.2) for strategy in ("bottom", "top")]
    assert tuple(one.filters for one in plans) == filters
    assert tuple(round(100 * one.macs_share, 1) for one in plans) == compute
    assert all(0.199 < one.weights_share <= 0.2 for one in plans)


@pytest.mark.parametrize(
    ("name", "convolutions", "norms", "batch_norm", "classifier", "boundary"),
    [
        ("mobilenet_v2", 2_189_760, 52, 34_112, 1_281_000, ("features.13.conv.1.0", 108, 576)),
        ("resnet50", 23_454_912, 53, 53_120, 2_049_000, ("layer3.2.conv2", 192, 256)),
        ("mnasnet1_0", 3_064_392, 52, 37_920, 1_281_000, ("layers.12.1.layers.0", 32, 1152)),
        ("squeezenet1_0", 735_424, 0, 0, 513_000, ("features.8.expand1x1", 92, 192)),
    ],
)
def test_what_is_counted(name, convolutions, norms, batch_norm, classifier, boundary):
    bottom = plan(name, num_filters=PAPER_FILTERS[name]["bottom"])
    assert sum(layer.weights for layer in bottom.layers) == convolutions
    assert bottom.classifier.weights == classifier
    assert len(bottom.norms) == norms
    nothing = plan(name, num_filters=0).account({"birds": 1000})
    assert nothing.domains["birds"].parameters == batch_norm + classifier
    last = list(bottom.own)[-1]
    assert (last, sum(bottom.own[last]), len(bottom.own[last])) == boundary


@pytest.mark.parametrize(
    ("name", "ours", "independent"),
    [
        ("mobilenet_v2", "4.99", "11.99"),
        ("resnet50", "43.88", "118.94"),
        ("mnasnet1_0", "6.58", "16.39"),
        ("squeezenet1_0", "1.67", "4.03"),
    ],
)
def test_with_the_classifiers_the_domains_have(name, ours, independent):
    heads = {"aircraft": 100, "birds": 200, "cars": 196, "dogs": 120, "indoor": 67}
    account = plan(name, fraction=0.2).account(heads)
    millions = [account.total.parameters / 1e6, account.independent.parameters / 1e6]
    assert [f"{value:.2f}" for value in millions] == [ours, independent]
