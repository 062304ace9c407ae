"""Specs: the grammar, networks of the user's own, and what an error says."""

import re
import sys
from pathlib import Path

import pytest
import torch

from weightfold.nets import available, build, network, parse_spec
from weightfold.spec import read_value

USERS_MODULE = """
from typing import TYPE_CHECKING
from torch import nn
if TYPE_CHECKING:
    from nowhere import Unknown

def wide(num_classes: int, width: int = 4, act: str = "relu", flag: bool = False):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Linear(width, num_classes))
    net.seen = (width, act, flag)
    return net

def channels(*, in_channels, num_classes, **options):
    net = nn.Conv2d(in_channels, num_classes, 1)
    net.seen = options
    return net

def annotated(num_classes, other: "Unknown" = None):
    return nn.Linear(1, num_classes)

def nothing(num_classes):
    return num_classes

def required(num_classes, width):
    return nn.Linear(width, num_classes)

def lazy(num_classes):
    import beside_it
    return nn.Linear(beside_it.WIDTH, num_classes)
"""


@pytest.fixture
def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "users_nets.py").write_text(USERS_MODULE)
    (tmp_path / "beside_it.py").write_text("WIDTH = 3")
    (tmp_path / "broken_nets.py").write_text("import a_package_that_is_missing")
    monkeypatch.chdir(tmp_path)
    for name in ("users_nets", "beside_it"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("smallnet_b", "smallnet_b", {}),
        ("smallnet_b,kernel_size=9", "smallnet_b", {"kernel_size": "9"}),
        (" a , b = x=y ,c=1 ", "a", {"b": "x=y", "c": "1"}),
        ("my.nets:make,width=8", "my.nets:make", {"width": "8"}),
    ],
)
def test_grammar(spec: str, name: str, options: dict):
    assert parse_spec(spec) == (name, options)


@pytest.mark.parametrize("spec", ["", ",a=1", "a=1", "a,b", "a,", "a,b=", "a,=1", "a,b=1,b=2"])
def test_malformed_specs_are_refused(spec: str):
    with pytest.raises(ValueError, match=re.escape(f"spec={spec!r}")):
        parse_spec(spec)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", None, 3),
        ("-3", None, -3),
        ("0.5", None, 0.5),
        ("1e-3", None, 0.001),
        ("True", None, True),
        ("false", None, False),
        ("none", None, None),
        ("relu6", None, "relu6"),
        ("3", str, "3"),
        ("3", float, 3.0),
        ("true", bool, True),
    ],
)
def test_values_are_read_by_kind_or_by_look(text: str, kind: type | None, value: object):
    read = read_value(text, kind)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("text", "kind"), [("3.5", int), ("x", float), ("1", bool), ("true", int)])
def test_values_of_another_kind_are_refused(text: str, kind: type):
    with pytest.raises(ValueError):
        read_value(text, kind)


def test_available_names_ours_and_torchvision_s_with_one_line_each():
    lines = available()
    assert {"smallnet_a", "smallnet_b", "digitnet", "mobilenet_v1", "resnet18"} <= lines.keys()
    assert all(line and "\n" not in line for line in lines.values())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("smallnet_c", ["smallnet_a", "smallnet_b", "timm/<name>", "module:function"]),
        ("resnet81", ["resnet18"]),
        ("smallnet_b,kernel=9", ["kernel", "did you mean 'kernel_size'", "its options"]),
        ("smallnet_b,in_channels=1", ["in_channels", "its options: kernel_size"]),
        ("smallnet_b,kernel_size=big", ["kernel_size='big'", "int"]),
        ("smallnet_b,kernel_size=7.5", ["kernel_size='7.5'", "int"]),
        ("mobilenet_v1,small_image=1", ["small_image='1'", "true or false"]),
        ("resnet18,wrong=1", ["wrong", "width_per_group", "small_image"]),
    ],
)
def test_errors_say_what_would_be_right(spec: str, says: list[str]):
    with pytest.raises(ValueError) as error:
        build(spec, num_classes=10)
    assert all(part in str(error.value) for part in says), error.value


@pytest.mark.parametrize("counts", [{"num_classes": 0}, {"num_classes": 10, "in_channels": 0}])
def test_counts_below_one_are_refused(counts: dict):
    with pytest.raises(ValueError, match="=0 must be at least 1"):
        build("digitnet", **counts)


def test_weights_follow_the_seed_of_the_caller():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build("digitnet", num_classes=10).conv1.weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'digitnet' exists already"):
        network("digitnet")(torch.nn.Linear)


def test_users_function_gets_what_its_signature_takes(users_folder: Path):
    before = list(sys.path)
    net = build("users_nets:wide,width=8,act=3,flag=true", num_classes=5, in_channels=3)
    assert net.seen == (8, "3", True)
    assert net(torch.zeros(2, 3, 2, 2)).shape == (2, 5)
    net = build("users_nets:channels,rate=0.5,name=x", num_classes=5, in_channels=2)
    assert (net.in_channels, net.out_channels, net.seen) == (2, 5, {"rate": 0.5, "name": "x"})
    assert build("users_nets:annotated", num_classes=5).out_features == 5
    assert build("users_nets:lazy", num_classes=5).in_features == 3
    assert sys.path == before


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("users_nets:wdie", ValueError, "no function 'wdie'; it has wide"),
        ("users_nes:wide", ValueError, "no module 'users_nes'"),
        ("users_nets.sub:wide", ValueError, "no module 'users_nets.sub'"),
        ("users_nets:wide,depth=3", ValueError, "no option 'depth'.*width, act, flag"),
        ("users_nets:required", ValueError, "missing.*width"),
        ("users_nets:channels,num_classes=3", ValueError, "no option 'num_classes'"),
        ("users_nets:nothing", TypeError, "gave a int"),
        ("broken_nets:wide", ModuleNotFoundError, "a_package_that_is_missing"),
    ],
)
def test_users_mistakes(users_folder: Path, spec: str, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        build(spec, num_classes=5)
