"""Arguments and options of another type are refused by name, whatever takes them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.hints import check_type
from weightfold.train.domains.joint import Joint
from weightfold.train.seeding import as_seeds

DATA = wf.data.load("digits,limit=20")
RECIPE = wf.Recipe(epochs=1, batch_size=10)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (np.int64(3), int),
        (3, float),
        (np.float32(0.5), float),
        (None, int | None),
        ("auto", Literal["auto"] | int),
        ([1, 2], tuple[int, ...]),
        ((1, "a"), tuple[int, str]),
        ({"a": 1}, Mapping[str, int]),
        ({"a": None}, Mapping[str, Any]),
        ([1, "a"], Sequence[Any]),
        (len, Callable[[list], int]),
        (Path(), Path | str),
        (torch.ones(2), torch.Tensor),
    ],
)
def test_what_fits(value, hint):
    check_type("argument", value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "error"),
    [
        ("3", int, TypeError),
        (2.5, int, TypeError),
        (True, int, TypeError),
        (True, float, TypeError),
        (1, bool, TypeError),
        (None, float, TypeError),
        ("test", Sequence[str], TypeError),
        (("a",), tuple[int, ...], TypeError),
        ((1, 2, 3), tuple[int, int], TypeError),
        ({"a": "b"}, Mapping[str, int], TypeError),
        (3, Callable[[], int], TypeError),
        (b"x", Path | str, TypeError),
        ("x", Literal["a", "b"], ValueError),
        (3, Literal["a", "b"], TypeError),
        ("x", Literal["auto"] | int, ValueError),
    ],
)
def test_what_does_not(value, hint, error):
    with pytest.raises(error, match="argument="):
        check_type("argument", value, hint)


OPTIONS = {
    wf.Recipe: {"epochs": 2.5, "lr": "0.1", "milestones": 3, "flip": "no", "schedule": "steps"},
    wf.Options: {"every": 1.5, "measure": "test", "until": 3, "save_seconds": float("nan")},
    Joint: {"head_epochs": "1", "sampler": "some"},
    wf.ExpandOptions: {"example_input": 3, "first": "n"},
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, given in OPTIONS.items() for name, value in given.items()],
)
def test_options_of_another_type_name_the_field_and_the_value(kind, name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name}='?{value}"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe", "long"),
        ("options", 3),
        ("progress", "yes"),
        ("folder", 3),
        ("seed", "a"),
        ("seed", -1),
        ("device", "tpus"),
        ("device", "cuda:7"),
        ("options", wf.Options(start="runs/a")),
    ],
)
def test_fit_names_what_it_cannot_take(name, value, tmp_path):
    given = {"recipe": RECIPE, "folder": tmp_path / "run", name: value}
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    wanted = "start='runs/a'" if isinstance(value, wf.Options) else f"{name}='?{value}"
    with pytest.raises((TypeError, ValueError), match=wanted):
        wf.fit(net, DATA, **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("net", [3, None, nn.Conv2d])
def test_fit_takes_modules_only(net):
    with pytest.raises(TypeError, match="net is"):
        wf.fit(net, DATA, RECIPE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seeds", "a"),
        ("seeds", 1.5),
        ("seeds", [-1]),
        ("seeds", True),
        ("folder", 3),
        ("recipe", None),
        ("progress", 3),
        ("device", "tpus"),
        ("together", "some"),
    ],
)
@pytest.mark.parametrize("probe", [wf.intrinsic_dimension, wf.lottery_ticket, wf.example_ledger])
def test_probes_name_what_they_cannot_take(probe, name, value):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises((TypeError, ValueError), match=name):
        probe(net, DATA, **{"recipe": RECIPE, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("variants", "ck"), ("seeds", "ab"), ("folder", None), ("match", "steps"), ("recipe", "x")],
)
def test_compare_names_what_it_cannot_take(name, value, tmp_path):
    given = {"recipe": RECIPE, "folder": tmp_path / "c", name: value}
    with pytest.raises((TypeError, ValueError), match=name):
        wf.compare("digitnet", "digits", **given)


def test_seeds_of_numpy_and_ranges():
    assert as_seeds(np.int64(2)) == (0, 1)
    assert as_seeds(range(3, 5)) == (3, 4)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: wf.nets.build("digitnet", num_classes=2.5), "num_classes=2.5"),
        (lambda: wf.nets.build(3, num_classes=2), "spec=3"),
        (lambda: wf.data.load(None), "spec=None"),
        (lambda: wf.tasks.build(3, DATA), "spec=3"),
    ],
)
def test_registries_name_what_they_cannot_take(call, name):
    with pytest.raises(TypeError, match=name):
        call()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 10)), r"\(2, 1, 8, 8\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False), "no trainable"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to("meta"), "'1.weight'"),
    ],
)
def test_fit_names_a_network_that_cannot_be_trained(net, message):
    with pytest.raises(ValueError, match=message):
        wf.fit(net, DATA, RECIPE)


def test_a_crop_beyond_the_image_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"crop_padding=8 .* 8 x 8"):
        wf.fit(net, DATA, wf.Recipe(epochs=1, crop_padding=8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net: net.verify(), ValueError, "Sequential"),
        (lambda net: net.verify("a"), ValueError, "Sequential"),
        (lambda net: net.verify(torch.ones(1, 3, 5, 5), at=3), TypeError, "at=3"),
        (lambda net: net(torch.ones(1, 3, 5, 5), at="a"), TypeError, "at='a'"),
        (lambda net: net.deploy(3), TypeError, "at=3"),
        (lambda net: net.fit(net.deploy().to("meta").state_dict()), TypeError, "'0.weight'"),
        (lambda net: wf.embed(net.deploy(), "image"), TypeError, "'image'"),
    ],
)
def test_charted_nets_name_what_they_cannot_take(call, error, message):
    with pytest.raises(error, match=message):
        call(wf.expand(nn.Sequential(nn.Conv2d(3, 4, 3)), rate=1, seed=0))


@pytest.mark.parametrize("extra", [(1, 2), {1: 2}, float("nan"), b"x"])
def test_extra_state_that_a_file_would_change_is_refused(extra, tmp_path):
    class Counting(nn.Conv2d):
        def get_extra_state(self):
            return extra

        def set_extra_state(self, state):
            pass

    with pytest.raises(TypeError, match=r"0\._extra_state"):
        wf.save(nn.Sequential(Counting(1, 1, 1)), tmp_path / "net")
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    "charted",
    [
        lambda net: wf.expand(net, rate=2, seed=0),
        lambda net: wf.mask(net, {"0.weight": torch.ones(4, 3, 3, 3)}),
        wf.doconv,
    ],
)
def test_coordinates_of_a_channels_last_network_are_contiguous(charted):
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    assert all(tensor.is_contiguous() for tensor in charted(net).state_dict().values())
