"""How a network is fed goes with it."""

import copy
import json

import pytest
import torch
from torch import nn

import weightfold as wf

TOLD = wf.Preprocessing((3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (-1.0, 1.0), tuple("abcd"))


def plain() -> nn.Module:
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4))


def fed() -> nn.Module:
    net = plain()
    TOLD.attach(net)
    return net


MADE = {
    "itself": lambda net: net,
    "a copy": copy.deepcopy,
    "expanded": lambda net: wf.expand(net, rate=2),
    "stacked": lambda net: wf.subspace(wf.expand(net, rate=2), dim=3),
    "deployed": lambda net: wf.subspace(wf.expand(net, rate=2), dim=3).deploy(),
}


@pytest.mark.parametrize("made", MADE)
def test_it_travels_and_is_saved(made, tmp_path):
    net = MADE[made](fed())
    assert wf.Preprocessing.of(net) == TOLD
    wf.save(net, tmp_path)
    assert wf.Preprocessing.of(wf.load(tmp_path, plain())) == TOLD


def test_domains_have_one_each(tmp_path):
    net = fed()
    plan = wf.plan_sharing(net, "bottom", 0.2, example_input=torch.zeros(1, 3, 8, 8))
    shared = wf.share(net, {"a": 4, "b": 3}, plan)
    assert wf.Preprocessing.of(net) == TOLD
    assert wf.Preprocessing.of(shared.deploy(domain="b")) == TOLD.without_classes()
    own = wf.Preprocessing((3, 8, 8), class_names=("x", "y", "z"))
    shared.about["b"] = own.record() | {"model": "any"}
    wf.save(shared, tmp_path)
    again = wf.load(tmp_path, plain())
    assert wf.Preprocessing.of(again.deploy(domain="b")) == own
    assert wf.Preprocessing.of(again.deploy({"domain": "a"})) == TOLD.without_classes()
    with pytest.raises(ValueError, match=r"net\.about\[domain\]"):
        wf.save(shared, tmp_path, preprocessing=own)


def test_given_when_saved_it_is_the_nets_from_then_on(tmp_path):
    net = wf.expand(plain(), rate=2)
    wf.save(net, tmp_path, preprocessing=TOLD)
    assert wf.Preprocessing.of(net) == wf.Preprocessing.of(wf.load(tmp_path, plain())) == TOLD
    with pytest.raises(TypeError, match="preprocessing="):
        wf.save(net, tmp_path, preprocessing={"mean": 1})


def test_unit_mean_and_std_give_the_same_numbers():
    """2 * x - 1 is a mean and a std of a half on values from 0 to 1."""
    pixels = torch.arange(256, dtype=torch.float64)
    for told in (TOLD, wf.Preprocessing((1, 4, 4), value_range=(0, 255)), half()):
        low, high = told.value_range
        for mean, std, unit_mean, unit_std in zip(
            told.mean, told.std, told.unit_mean, told.unit_std, strict=True
        ):
            right = (low + (high - low) * pixels / 255 - mean) / std
            torch.testing.assert_close((pixels / 255 - unit_mean) / unit_std, right)
    assert (half().unit_mean, half().unit_std) == ((0.5,) * 3, (0.5,) * 3)


def half() -> wf.Preprocessing:
    return wf.Preprocessing((3, 4, 4), value_range=(-1, 1))


def test_records_are_read_back_and_older_ones_too():
    record = json.loads(json.dumps(TOLD.record()))
    assert wf.Preprocessing.of_record(record | {"model": "digitnet"}) == TOLD
    old = {name: record[name] for name in ("image_shape", "mean", "std")}
    found = wf.Preprocessing.of_record(old)
    assert found.value_range == (0, 1) and not found.class_names
    del old["mean"]
    assert wf.Preprocessing.of_record(old) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_shape": (3, 8)}, "image_shape"),
        ({"image_shape": (3, 8, 0)}, "image_shape"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\) must be 3 numbers"),
        ({"mean": 0.5}, "mean=0.5 must be a list"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean"),
        ({"std": (0.2, 0.0, 0.2)}, r"std=\(0.2, 0.0, 0.2\) must be above 0"),
        ({"std": (0.2, -1.0, 0.2)}, "std"),
        ({"std": ("a", "b", "c")}, "std"),
        ({"value_range": (1.0, 1.0)}, "value_range"),
        ({"value_range": (0.0,)}, "value_range"),
        ({"class_names": "abcd"}, "class_names"),
        ({"class_names": (1, 2)}, "class_names"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changed, message):
    given = {name: getattr(TOLD, name) for name in TOLD.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        wf.Preprocessing(**(given | changed))


def test_a_damaged_record_names_its_file(tmp_path):
    wf.save(fed(), tmp_path)
    path = tmp_path / "manifest.json"
    record = json.loads(path.read_text())
    record["preprocessing"]["std"] = [0, 0, 0]
    del record["sha256"]
    from weightfold.records import sealed

    path.write_text(json.dumps(sealed(record)))
    with pytest.raises(ValueError, match=r"manifest\.json.*std"):
        wf.load(tmp_path, plain())
