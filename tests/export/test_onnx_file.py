import json
import sys
from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from weightfold.export import ExportError, accuracy, onnx_runner, to_onnx, torch_runner
from weightfold.export.subject import check_differences, relative_difference, relative_differences


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())


def test_report(exported, trained):
    assert json.loads(json.dumps(asdict(exported)))["operators"] == exported.operators
    assert list(exported.max_relative_difference) == [1, 2, 5]
    # 30 times float32's 2**-24, for sums of up to 288 products.
    assert max(exported.max_relative_difference.values()) < 2e-6
    assert exported.operators["Conv"] == 3
    assert "BatchNormalization" not in exported.operators
    assert exported.bytes == Path(exported.path).stat().st_size
    parameters = sum(p.numel() for n, p in trained.net.named_parameters() if "bn" not in n)
    assert exported.bytes > 4 * parameters


@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_onnx_runtime_agrees_on_digits(exported, trained, batch_size):
    images = trained.test[0][0][:batch_size]
    session = onnxruntime.InferenceSession(exported.path)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        expected = trained.net(images)
    assert logits.shape == (batch_size, 10)
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)


def test_accuracy_of_the_file_is_that_of_the_network(exported, trained):
    with torch.no_grad():
        hits = sum((trained.net(x).argmax(1) == y).sum().item() for x, y in trained.test)
    total = sum(len(y) for _, y in trained.test)
    assert total == 597
    assert accuracy(torch_runner(trained.net), trained.test) == hits / total
    # One tie that falls the other way would be allowed; there is none.
    assert accuracy(onnx_runner(exported.path), trained.test) == pytest.approx(hits / total)


def test_no_source_paths_in_the_file(exported):
    content = Path(exported.path).read_bytes()
    assert b"conftest" not in content
    assert b"site-packages" not in content


def test_one_file_in_silence_and_the_module_unchanged(tmp_path, capfd):
    net = small_net().train()
    net[1].eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    capfd.readouterr()
    report = to_onnx(net, torch.zeros(3, 1, 5, 5), tmp_path / "net.onnx", dynamic_batch=False)
    assert capfd.readouterr() == ("", "")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert [m.training for m in net.modules()] == [True, True, False, True, True]
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert list(report.max_relative_difference) == [3]
    shape = onnx.load(tmp_path / "net.onnx").graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [3, 1, 5, 5]


def test_a_difference_above_tolerance_writes_nothing(trained, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("of before")
    with pytest.raises(ExportError, match=r"\de-\d\d at batch 1, .* tolerance=1e-12"):
        to_onnx(trained.net, trained.images[:1], path, tolerance=1e-12)
    assert path.read_text() == "of before"
    assert list(tmp_path.iterdir()) == [path]


def test_relative_difference():
    b = torch.tensor([[3.0, -200.0]])
    assert relative_difference(b + torch.tensor([[0.0, 1.0]]), b) == pytest.approx(0.005)
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == 0
    for wrong in (torch.nan, torch.inf, -torch.inf):
        assert relative_difference(torch.tensor([1.0, wrong]), torch.ones(2)) == float("inf")
    absent = torch.tensor([-torch.inf, 2.0])
    assert relative_difference(torch.tensor([-torch.inf, 3.0]), absent) == 0.5
    assert relative_difference(torch.tensor([torch.inf, 2.0]), absent) == float("inf")


def test_a_wrong_runner_is_found(trained):
    """At one of the two magnitudes, and where an output is not a number."""

    def clipped(x):
        return torch_runner(trained.net)(x.clamp(-100, 100))

    def not_a_number(x):
        return torch_runner(trained.net)(x) * (torch.nan if x.abs().max() > 100 else 1)

    for wrong in (clipped, not_a_number):
        found = relative_differences(wrong, trained.net, trained.images[:1], (2,))
        with pytest.raises(ExportError, match=r"the file differs from torch by .* at batch 2"):
            check_differences("the file", found, 0.1)


@pytest.mark.parametrize(
    ("example", "error", "message"),
    [
        (torch.zeros(1, 3, 8, 8), ValueError, r"example_input has shape \(1, 3, 8, 8\)"),
        (torch.zeros(8), ValueError, r"example_input has shape \(8,\)"),
        (torch.zeros(0, 1, 8, 8), ValueError, r"example_input has shape \(0, 1, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.float64), ValueError, "dtype torch.float64"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), TypeError, "example_input is torch.uint8"),
        ([0.0], TypeError, "example_input is <class 'list'>"),
    ],
)
def test_wrong_examples(trained, tmp_path, example, error, message):
    with pytest.raises(error, match=message):
        to_onnx(trained.net, example, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_folder_and_missing_extra(trained, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"make the folder .*nowhere"):
        to_onnx(trained.net, trained.images[:1], tmp_path / "nowhere" / "net.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        to_onnx(trained.net, trained.images[:1], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"net\.onnx' is missing"):
        onnx_runner(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'weightfold\[export\]'"):
        to_onnx(trained.net, trained.images[:1], tmp_path / "net.onnx")


def test_networks_that_cannot_be_exported(tmp_path):
    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ExportError, match=r"failed on Branching .* \(batch, 4\)") as info:
        to_onnx(Branching(), torch.zeros(1, 4), tmp_path / "net.onnx")
    assert info.value.__cause__ is not None
    with pytest.raises(TypeError, match="Pair: output=None"):
        to_onnx(Pair(), torch.zeros(1, 4), tmp_path / "net.onnx")


def test_accuracy_of_nothing():
    with pytest.raises(ValueError, match="batches is empty"):
        accuracy(lambda x: x, [])
