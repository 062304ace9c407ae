import json
from dataclasses import asdict

import onnx
import pytest
import torch
from onnx import numpy_helper

from weightfold.export import accuracy, onnx_runner, quantize_static, torch_runner


@pytest.fixture(scope="module")
def static(exported, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("static") / "int8.onnx"
    return quantize_static(exported.path, trained.images[:300], path)


def tensors(path):
    model = onnx.load(path)
    return {t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}


def weights(path):
    return {name: t for name, t in tensors(path).items() if t.dim() >= 2}


def test_all_weights_are_int8_and_the_file_is_smaller(static, trained):
    wanted = sum(p.numel() for p in trained.net.parameters() if p.dim() >= 2)
    assert {t.dtype for t in weights(static.path).values()} == {torch.int8}
    assert sum(t.numel() for t in weights(static.path).values()) == wanted
    assert (static.int8_weights, static.float_weights) == (wanted, 0)
    assert static.bytes < 0.5 * static.float32_bytes
    assert json.loads(json.dumps(asdict(static)))["operators"]["Conv"] == 3


def test_weights_are_rounded_to_the_nearest_step_of_their_channel(static, exported):
    stored = tensors(static.path)
    compared = 0
    for name, weight in weights(exported.path).items():
        integers = stored[f"{name}_quantized"].double()
        scale = stored[f"{name}_scale"].double().reshape(-1, *[1] * (weight.dim() - 1))
        assert len(scale) == len(weight)
        assert ((integers * scale - weight).abs() <= 0.5001 * scale).all()
        compared += 1
    assert compared == 4


def test_little_accuracy_is_lost(static, trained):
    before = accuracy(torch_runner(trained.net), trained.test)
    after = accuracy(onnx_runner(static.path), trained.test)
    assert before > 0.9
    assert after > before - 0.05


def test_the_calibration_sets_the_ranges(exported, trained, tmp_path):
    """Images 50 times too dark clip the activations: the loss test above can fail."""
    quantize_static(exported.path, trained.images[:300] / 50, tmp_path / "dark.onnx")
    before = accuracy(torch_runner(trained.net), trained.test)
    assert accuracy(onnx_runner(tmp_path / "dark.onnx"), trained.test) < before - 0.05


def test_processors(exported, trained, tmp_path):
    for cpu, limit, zero_points in (
        ("x86-without-vnni", 64, torch.uint8),
        ("arm", 127, torch.int8),
    ):
        path = tmp_path / f"{cpu}.onnx"
        quantize_static(exported.path, trained.images[:100], path, cpu=cpu)
        found = tensors(path)
        assert max(t.abs().max() for t in weights(path).values()) == limit
        assert found["images_zero_point"].dtype == zero_points
    with pytest.raises(ValueError, match="cpu='riscv'; choose one of x86, x86-without-vnni, arm"):
        quantize_static(exported.path, trained.images[:100], tmp_path / "x.onnx", cpu="riscv")


def test_silence(exported, trained, tmp_path, capfd):
    capfd.readouterr()
    quantize_static(exported.path, trained.images[:10], tmp_path / "int8.onnx")
    assert capfd.readouterr() == ("", "")
    assert [p.name for p in tmp_path.iterdir()] == ["int8.onnx"]


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (torch.zeros(0, 1, 8, 8), r"calibration has shape \(0, 1, 8, 8\); give at least one"),
        (torch.zeros(9, 3, 8, 8), r"calibration has shape \(9, 3, 8, 8\)"),
        (torch.zeros(9, 1, 8, 8).double(), "dtype torch.float64"),
        (torch.full((9, 1, 8, 8), torch.nan), "not finite"),
    ],
)
def test_wrong_calibrations(exported, tmp_path, calibration, message):
    with pytest.raises(ValueError, match=message):
        quantize_static(exported.path, calibration, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_files(exported, trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.onnx' is missing"):
        quantize_static(tmp_path / "no.onnx", trained.images[:9], tmp_path / "int8.onnx")
    with pytest.raises(FileNotFoundError, match="make the folder"):
        quantize_static(exported.path, trained.images[:9], tmp_path / "nowhere" / "int8.onnx")
