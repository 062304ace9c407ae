import zipfile

import pytest
import torch

from weightfold.export import ExportError, program_runner, subject, to_exported_program


def test_the_program_is_the_network_bit_for_bit(trained, tmp_path):
    path = tmp_path / "net.pt2"
    report = to_exported_program(trained.net, trained.images[:1], path)
    assert report.max_relative_difference == {1: 0.0, 2: 0.0, 5: 0.0}
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]
    images, _ = trained.test[0]
    with torch.no_grad():
        expected = trained.net(images)
        assert torch.equal(torch.export.load(path).module()(images), expected)
    assert torch.equal(program_runner(path)(images), expected)


def test_the_file_holds_neither_images_nor_source_paths(trained, tmp_path):
    path = tmp_path / "net.pt2"
    example = trained.images[:2]
    size = to_exported_program(trained.net, example, path).bytes
    # A view of all images: torch would store the storage whole.
    assert example.untyped_storage().nbytes() > 4 * size / 3
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert example[0].numpy().tobytes() not in content
    assert b"conftest.py" not in content


def test_quantized_networks_too(aware, trained, tmp_path):
    report = to_exported_program(aware, trained.images[:1], tmp_path / "net.pt2")
    assert max(report.max_relative_difference.values()) == 0


def test_errors(trained, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        to_exported_program(trained.net, trained.images[:1], tmp_path / "net.onnx")
    with pytest.raises(FileNotFoundError, match=r"net\.pt2' is missing"):
        program_runner(tmp_path / "net.pt2")
    monkeypatch.setattr(subject, "relative_difference", lambda a, b: 0.5)
    with pytest.raises(ExportError, match=r"the loaded program differs .* 5\.00e-01 at batch 5"):
        to_exported_program(trained.net, trained.images[:1], tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())
