"""Every exported file says how its network is fed."""

import json

import onnx
import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.export import (
    file_preprocessing,
    quantize_static,
    to_exported_program,
    to_onnx,
    to_safetensors,
)
from weightfold.export.domains import to_onnx_per_domain

TOLD = wf.Preprocessing((3, 8, 8), value_range=(-1.0, 1.0), class_names=("no", "yes"))
EXAMPLE = torch.zeros(1, 3, 8, 8)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


@pytest.fixture(scope="module")
def fed():
    found = net()
    TOLD.attach(found)
    return wf.expand(found, rate=2)


@pytest.mark.parametrize(
    ("write", "ending"),
    [(to_onnx, "onnx"), (to_exported_program, "pt2"), (to_safetensors, "safetensors")],
)
def test_files_say_it(write, ending, fed, tmp_path):
    path = tmp_path / f"net.{ending}"
    write(fed, EXAMPLE, path)
    assert file_preprocessing(path) == TOLD
    write(net(), EXAMPLE, path)
    assert file_preprocessing(path) is None


def test_int8_says_what_float32_says(fed, tmp_path):
    to_onnx(fed, EXAMPLE, tmp_path / "f.onnx")
    quantize_static(tmp_path / "f.onnx", torch.randn(8, 3, 8, 8), tmp_path / "q.onnx")
    assert file_preprocessing(tmp_path / "q.onnx") == TOLD


def test_graphs_of_domains_say_each_its_own(tmp_path):
    plan = wf.plan_sharing(net(), "bottom", 0.5, example_input=EXAMPLE)
    shared = wf.share(net(), {"a": 2, "b": 2}, plan)
    shared.about["a"] = TOLD.record()
    to_onnx_per_domain(shared, EXAMPLE, tmp_path)
    assert file_preprocessing(tmp_path / "a.onnx") == TOLD
    assert file_preprocessing(tmp_path / "b.onnx") is None


def test_a_file_says_the_size_it_takes(fed, tmp_path):
    pooled = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    TOLD.attach(pooled)
    to_onnx(pooled, torch.zeros(1, 3, 12, 12), tmp_path / "net.onnx")
    assert file_preprocessing(tmp_path / "net.onnx").image_shape == (3, 12, 12)


def test_names_that_are_not_one_a_class_are_refused(tmp_path):
    wrong = net()
    wf.Preprocessing((3, 8, 8), class_names=("a", "b", "c")).attach(wrong)
    with pytest.raises(ValueError, match=r"class_names are 3, but .* 2 classes"):
        to_onnx(wrong, EXAMPLE, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_plain_weights_load_in_plain_torch(fed, tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "plain.safetensors"
    report = to_safetensors(fed, EXAMPLE, path)
    assert report.bytes == path.stat().st_size and max(report.max_relative_difference.values()) == 0
    again = net()
    again.load_state_dict(load_file(path))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(again(x), fed(x))
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        to_safetensors(fed, EXAMPLE, tmp_path / "plain.pt")


def test_files_that_cannot_say_it_are_refused(tmp_path):
    for path, error in (
        (tmp_path / "no.onnx", FileNotFoundError),
        (tmp_path / "x.txt", ValueError),
    ):
        with pytest.raises(error, match=path.name):
            file_preprocessing(path)
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.onnx"):
        file_preprocessing(tmp_path / "bad.onnx")


def test_damaged_metadata_is_refused(fed, tmp_path):
    path = tmp_path / "net.onnx"
    to_onnx(fed, EXAMPLE, path)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"preprocessing": json.dumps({**TOLD.record(), "std": [0]})})
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"net\.onnx.*std"):
        file_preprocessing(path)
