"""What a plan costs, against hand counts and against the net that is built."""

import json

import pytest
import torch
from torch import nn

from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share

IMAGE = torch.zeros(1, 3, 8, 8)
HEADS = {"birds": 5, "cars": 2}


class Small(nn.Sequential):
    """Convolutions of 4 x 28 and 6 x 18 parameters, batch norm of 4, a hidden and a last Linear."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 7),
            nn.Linear(7, 3),
        )


def small(**options):
    return plan_sharing(Small(), num_filters=5, example_input=IMAGE, **options)


OTHERS = 7 * 7  # the hidden Linear
OWN, SHARED = 4 * 28 + 18, 5 * 18


@pytest.mark.parametrize(("bn", "norm"), [("affine", 8), ("stats", 16), ("all", 17)])
def test_by_hand(bn, norm):
    account = small().account(HEADS, bn=bn)
    assert account.shared.parameters == SHARED + OTHERS
    assert account.domains["birds"].parameters == OWN + norm + 5 * 8
    assert account.domains["cars"].parameters == OWN + norm + 2 * 8
    assert account.total.parameters == SHARED + OTHERS + 2 * (OWN + norm) + 7 * 8
    assert account.independent.parameters == 2 * (SHARED + OTHERS + OWN + norm) + 7 * 8
    assert account.shared.bytes == 4 * (SHARED + OTHERS)
    assert account.domains["cars"].bytes == 4 * (OWN + 16 + 16) + 8
    assert account.shared.macs == 64 * SHARED + 6 * 7
    assert account.domains["birds"].macs == 64 * (4 * 27 + 18) + 7 * 5


def test_a_kept_copy_is_counted_once():
    plain, kept = small().account(HEADS), small().account(HEADS, keep_shared_copy=True)
    assert kept.total.parameters - plain.total.parameters == OWN
    assert kept.total.bytes - plain.total.bytes == 4 * OWN
    assert kept.shared.macs == plain.shared.macs
    assert kept.domains == plain.domains


@pytest.mark.parametrize("bn", ["affine", "stats", "all"])
def test_shared_batch_norm_and_head_count_once(bn):
    heads = dict.fromkeys("abc", 3)
    own = small().account(heads, bn=bn)
    shared = small(bn="shared", head="shared").account(heads, bn=bn)
    norm = {"affine": 8, "stats": 16, "all": 17}[bn]
    assert own.total.parameters - shared.total.parameters == 2 * (norm + 3 * 8)
    assert own.total.bytes - shared.total.bytes == 2 * (4 * 16 + 8 + 4 * 3 * 8)
    assert shared.domains["a"].parameters == OWN
    assert shared.independent == own.independent


@pytest.mark.parametrize("strategy", ["bottom", "top", "random"])
@pytest.mark.parametrize("fraction", [0, 0.4, 1])
def test_the_shared_net_has_that_many_parameters_and_bytes(strategy, fraction):
    plan = plan_sharing(Small(), strategy, fraction, example_input=IMAGE)
    account = plan.account(HEADS)
    net = share(Small(), HEADS, plan)
    assert sum(p.numel() for p in net.parameters()) == account.total.parameters
    for domain, cost in account.domains.items():
        tensors = net.sharing.domains[domain].state_dict().values()
        assert sum(t.numel() * t.itemsize for t in tensors) == cost.bytes


def test_fraction_one_is_independent_networks_but_for_what_is_never_own():
    plan = plan_sharing(Small(), fraction=1, example_input=IMAGE)
    account = plan.account(HEADS)
    assert account.independent.parameters - account.total.parameters == OTHERS


def test_other_dtypes_count_their_bytes():
    half = plan_sharing(Small().half(), num_filters=5, example_input=IMAGE.half()).account(HEADS)
    assert half.total.parameters == small().account(HEADS).total.parameters
    assert half.domains["cars"].bytes == 2 * (OWN + 16 + 16) + 8


def test_rows_and_layers():
    account = small().account(HEADS)
    data = json.loads(json.dumps(account.as_json()))
    assert [(row["part"], row["domain"]) for row in data["rows"]] == [
        ("shared", None),
        ("domain", "birds"),
        ("domain", "cars"),
        ("total", None),
        ("independent", None),
    ]
    assert data["rows"][3]["parameters"] == account.total.parameters
    assert data["rows"][3]["macs"] is None
    assert data["layers"][1] == {
        "layer": "2",
        "filters": 6,
        "own_filters": 1,
        "groups": 2,
        "shared_parameters": SHARED,
        "own_parameters": 18,
        "shared_macs": 64 * SHARED,
        "own_macs": 64 * 18,
    }


def test_text():
    text = str(small().account(HEADS))
    assert "5 of 10 filters" in text
    assert all(
        word in text for word in ("birds", "cars", "shared", "total", "independent", "bytes")
    )


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({}, "names no domain"),
        ({"bi rds": 3}, "'bi rds' is no name of a domain; use letters"),
        ({3: 3}, "3 is no name of a domain"),
        ({"birds": 0}, "'birds' has classes=0"),
        ({"birds": True}, "=True"),
        ({"birds": 2.0}, "=2.0"),
    ],
)
def test_heads(heads, message):
    with pytest.raises(ValueError, match=message):
        small().account(heads)


def test_arguments():
    with pytest.raises(ValueError, match="bn='none'"):
        small().account(HEADS, bn="none")
