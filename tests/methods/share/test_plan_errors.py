"""What a plan refuses, and that it says why."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import weightfold as wf
from weightfold.methods.share.layers import find_layers
from weightfold.methods.share.plan import Plan, plan_sharing

IMAGE = torch.zeros(2, 3, 8, 8)


def network(width=4, classes=5):
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 1.2}, "fraction=1.2; a share is between 0 and 1"),
        ({"fraction": -0.1}, "between 0 and 1"),
        ({"fraction": float("nan")}, "between 0 and 1"),
        ({"fraction": 0.2}, r"fraction=0.2 is 22 of 112 weights, less than .* takes 28; .*0.25"),
        ({"fraction": 0.2, "budget": "macs"}, "of 3,888 macs"),
        ({}, "give one of them"),
        ({"fraction": 0.5, "num_filters": 2}, "fraction=0.5 and num_filters=2; give one"),
        ({"num_filters": 5}, "num_filters=5; the convolutions have 4 filters"),
        ({"num_filters": -1}, "num_filters=-1"),
        ({"strategy": "botom", "fraction": 0.5}, "strategy='botom'.*'bottom'.*mask per layer"),
        ({"fraction": 0.5, "budget": "flops"}, "budget='flops'"),
        ({"fraction": 0.5, "bn": "both"}, "bn='both'"),
        ({"fraction": 0.5, "head": "none"}, "head='none'"),
        ({"fraction": 0.5, "bn": "shared", "shared_norms": "1"}, "leave out shared_norms"),
        ({"fraction": 0.5, "shared_norms": "bn*"}, "matches no batch norm; there are 1"),
        ({"fraction": 0.5, "head_path": "5"}, "head_path='5' is no Linear.*0, 4"),
        ({"fraction": 0.5, "layers": find_layers(network(8), IMAGE)}, "layers.*'0' of 8 filters"),
        ({"strategy": {"0": [True] * 4}, "fraction": 0.5}, "leave out fraction=0.5"),
        ({"strategy": {"0": [True] * 3}}, r"mask of '0' has shape \(3,\); the layer has 4"),
        ({"strategy": {"1": [True] * 4}}, "mask of '1' is for no convolution.*there are 0"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_sharing(network(), **arguments, example_input=IMAGE)


def test_types():
    with pytest.raises(TypeError, match="not of type bool"):
        plan_sharing(network(), {"0": [1, 0, 0, 1]}, example_input=IMAGE)
    with pytest.raises(TypeError, match="example_input is a tuple"):
        plan_sharing(network(), fraction=0.5, example_input=(1, 3, 8, 8))
    with pytest.raises(TypeError, match=r"layers=\['0'\]"):
        plan_sharing(network(), fraction=0.5, layers=["0"])
    with pytest.raises(TypeError, match="plan the plain network"):
        plan_sharing(wf.expand(network()), fraction=0.5, example_input=IMAGE)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 2), "no convolution"),
        (nn.Sequential(nn.Conv1d(3, 2, 1)), "first convolution is a Conv1d; give example_input"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)),
            r"no example_input: an image of shape \(1, 1, 224, 224\) does not run",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), "gives 200704 outputs.*head_path"),
        (nn.Conv2d(3, 4, 1), "no convolution of the model runs besides its classifier"),
    ],
)
def test_models(model, message):
    with pytest.raises(ValueError, match=message):
        plan_sharing(model, fraction=0.5)


def test_a_model_of_many_outputs_needs_head_path():
    class Two(nn.Sequential):
        def forward(self, x):
            return {"logits": super().forward(x)}

    model = Two(*network())
    with pytest.raises(ValueError, match="no tensor of shape"):
        plan_sharing(model, fraction=0.5, example_input=IMAGE)
    assert plan_sharing(model, fraction=0.5, example_input=IMAGE, head_path="4").head == "4"


def test_parametrized_convolutions():
    model = network()
    parametrizations.weight_norm(model[0])
    with pytest.raises(ValueError, match="layer '0' has no Parameter 'weight'"):
        plan_sharing(model, fraction=0.5, example_input=IMAGE)


def test_a_plan_for_another_model():
    plan = plan_sharing(network(), fraction=0.5, example_input=IMAGE)
    plan.check(network(classes=9))
    assert plan.fingerprint == plan_sharing(network(classes=9), num_filters=0).fingerprint
    with pytest.raises(ValueError, match=r"'0.bias' has shape \(6,\), not \(4,\).*more"):
        plan.check(network(width=6))
    with pytest.raises(ValueError, match=r"it has '5.bias' besides; .* '5.weight' besides"):
        plan.check(network().append(nn.Linear(5, 5)))
    with pytest.raises(ValueError, match=r"it lacks '1.bias'.*plan_sharing"):
        plan.check(nn.Sequential(nn.Conv2d(3, 4, 3), *[nn.Identity()] * 3, nn.Linear(4, 5)))


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "0" * 64},
        {"layers": [{"path": "0"}]},
        {"own": {"9": [[0, 1]]}},
        {"own": {"0": [[0, 9]]}},
        {"own": None},
        {"tensors": {"0.weight": [[9, 3, 3, 3], "float32", False]}},
    ],
)
def test_data_that_are_no_plan(change):
    data = plan_sharing(network(), fraction=0.5, example_input=IMAGE).to_json()
    with pytest.raises(ValueError, match=r"no plan|fingerprint"):
        Plan.from_json({**data, **change})
    del data["norms"]
    with pytest.raises(ValueError, match="norms"):
        Plan.from_json(data)
