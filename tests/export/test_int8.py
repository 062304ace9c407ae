import json
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
import torch

from weightfold.export import Aware, accuracy, int8_report, onnx_runner
from weightfold.export.processor import kind_of


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    return int8_report(
        trained.net,
        trained.images[:300],
        iter(trained.test),
        tmp_path_factory.mktemp("report"),
        aware=Aware(trained.training, steps=24),
        repeats=3,
    )


def test_report(report, trained):
    assert json.loads(json.dumps(asdict(report))) == asdict(report)
    for variant in (report.float32, report.static, report.aware):
        assert variant.accuracy == accuracy(onnx_runner(variant.path), trained.test)
        assert variant.bytes == Path(variant.path).stat().st_size
        assert variant.latency.repeats == 3
    for variant in (report.static, report.aware):
        assert variant.accuracy > report.float32.accuracy - 0.05
        assert variant.bytes < 0.5 * report.float32.bytes
        expected = variant.latency.median_ms / report.float32.latency.median_ms
        assert report.latency_ratio(variant) == expected


def test_weights_of_the_aware_file_are_int8(report, trained):
    stored = [
        (tuple(t.dims), t.data_type)
        for t in onnx.load(report.aware.path).graph.initializer
        if len(t.dims) >= 2
    ]
    wanted = sorted(tuple(p.shape) for p in trained.net.parameters() if p.dim() >= 2)
    assert sorted(shape for shape, _ in stored) == wanted
    assert {kind for _, kind in stored} == {onnx.TensorProto.INT8}


def test_what_was_done_stays_where_fine_tuning_fails(trained, tmp_path):
    aware = Aware(trained.training, steps=2, tolerance=1e-9)
    images = trained.images[:100]
    report = int8_report(trained.net, images, trained.test, tmp_path, aware=aware, repeats=1)
    assert report.aware is None and "differs from torch" in report.failed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["float32.onnx", "int8-static.onnx"]


@pytest.mark.parametrize(
    ("machine", "flags", "kind"),
    [
        ("x86_64", "fma avx2 avx512f avx512_vnni", "x86"),
        ("x86_64", "fma avx2 avx_vnni", "x86"),
        ("AMD64", "avx2 amx_int8", "x86"),
        ("x86_64", "fma avx2 avx512f", "x86-without-vnni"),
        ("AMD64", "", "x86-without-vnni"),
        ("aarch64", "asimd", "arm"),
        ("arm64", "", "arm"),
    ],
)
def test_processors_are_told_by_their_flags(machine, flags, kind):
    assert kind_of(machine, flags.split()) == kind


def test_errors_come_before_the_work(trained, tmp_path):
    with pytest.raises(ValueError, match="test_batches is empty"):
        int8_report(trained.net, trained.images[:9], [], tmp_path)
    with pytest.raises(ValueError, match=r"calibration has shape \(9, 3, 8, 8\)"):
        int8_report(trained.net, torch.zeros(9, 3, 8, 8), trained.test, tmp_path)
    with pytest.raises(FileNotFoundError, match="make the folder"):
        int8_report(trained.net, trained.images[:9], trained.test, tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())
