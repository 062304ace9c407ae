"""`where`, and what the verbs say about bad arguments."""

import pytest
import torch
from torch import nn

import weightfold as wf


def chosen(cases, where):
    return list(wf.subspace(cases.Conv(), dim=2, where=where).theta())


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("conv1.weight", ["conv1.weight"]),
        ("conv*.weight", ["conv1.weight", "conv2.weight"]),
        (["head.bias", "conv1.b*"], ["conv1.bias", "head.bias"]),
        (nn.BatchNorm2d, ["norm.weight", "norm.bias"]),
        (lambda name, p: p.dim() == 2, ["head.weight"]),
        ([nn.Linear, "norm.bias"], ["norm.bias", "head.weight", "head.bias"]),
        (("conv?.bias",), ["conv1.bias", "conv2.bias"]),
    ],
)
def test_choosing(cases, where, names):
    assert chosen(cases, where) == names


def test_none_is_all(cases):
    assert chosen(cases, None) == [n for n, _ in cases.Conv().named_parameters()]


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("conv1.wieght", ValueError, r"where='conv1\.wieght' matches no .*conv1\.weight"),
        (["conv1.*", "convv2.*"], ValueError, r"where='convv2\.\*' matches no"),
        (nn.LSTM, ValueError, r"LSTM.* matches no"),
        ([], ValueError, r"where=\[\]"),
        (lambda n, p: False, ValueError, "matches no"),
        (["conv1.*", 3], TypeError, "item 3; give names, globs"),
    ],
)
def test_what_matches_nothing(cases, where, error, message):
    with pytest.raises(error, match=message):
        chosen(cases, where)


def test_mask_arguments(cases):
    model = cases.Conv()
    with pytest.raises(
        ValueError, match=r"masks\['conv1\.weight'\] has shape \(4, 2, 3\).*\(4, 2, 3, 3\)"
    ):
        wf.mask(model, {"conv1.weight": torch.ones(4, 2, 3)})
    for bad in (0.5, 2.0, -1.0, float("nan")):
        with pytest.raises(
            ValueError, match=r"masks\['head\.bias'\] has values other than 0 and 1"
        ):
            wf.mask(model, {"head.bias": torch.tensor([1.0, 0.0, bad])})
    with pytest.raises(ValueError, match=r"masks.*'haed\.bias'.*head\.bias"):
        wf.mask(model, {"head.bias": torch.ones(3), "haed.bias": torch.ones(3)})
    with pytest.raises(TypeError, match=r"masks=\{\}"):
        wf.mask(model, {})


def test_a_model_without_parameters():
    with pytest.raises(ValueError, match="no trainable parameter"):
        wf.subspace(nn.Sequential(nn.ReLU()), dim=1)


def test_mask_by_short_name_over_another_level(cases):
    net = wf.mask(cases.Conv(), {"conv1.weight": torch.ones(4, 2, 3, 3)})
    zeros = torch.zeros(4, 2, 3, 3)
    assert not wf.mask(net, {"conv1.weight": zeros}).theta()["conv1.weight"].any()
