import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import weightfold as wf
from weightfold.cli import main
from weightfold.data import load
from weightfold.lab.saved import deployed, load_run
from weightfold.lab.variants import make_net
from weightfold.nets import build
from weightfold.records import sealed
from weightfold.train import evaluate

SHAPE = (1, 8, 8)


def train(stripes: Path, folder: Path, *options: str) -> int:
    return main(
        ["train", "--model", "digitnet", "--data", str(stripes), "--folder", str(folder),
         "--epochs", "2", "--batch-size", "32", *options]
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(stripes, tmp_path_factory) -> Path:
    """Folder of a finished run in expanded coordinates."""
    folder = tmp_path_factory.mktemp("train") / "run"
    assert train(stripes, folder, "--variant", "cl,rate=2", "--seed", "5") == 0
    return folder


def test_run_records_what_it_was_asked(run, stripes):
    found = json.loads((run / "run.json").read_text())["configuration"]
    assert found["about"] == {"model": "digitnet", "variant": "cl,rate=2", "data": str(stripes)}
    assert (found["seed"], found["recipe"]["epochs"], found["recipe"]["lr"]) == (5, 2, 0.05)


def test_repeating_prints_the_same_and_another_run_is_refused(run, stripes, capsys):
    assert train(stripes, run, "--variant", "cl,rate=2", "--seed", "5") == 0
    history = json.loads((run / "history.json").read_text())
    out = " ".join(capsys.readouterr().out.split())
    assert f"test accuracy {history['last_accuracy']:.2%} after the last of 2 epochs" in out
    assert train(stripes, run, "--variant", "cl,rate=4", "--seed", "5") == 2
    assert "about.variant: 'cl,rate=2' there, 'cl,rate=4' now" in capsys.readouterr().err


def test_teacher_is_the_run_named(run, stripes, tmp_path):
    weight = ["--distillation.weight", "0.5"]
    assert train(stripes, tmp_path / "pupil", "--teacher", str(run), *weight) == 0
    pupil = json.loads((tmp_path / "pupil" / "run.json").read_text())["configuration"]
    assert pupil["task"]["distillation"] == {"temperature": 4.0, "weight": 0.5}
    assert pupil["task"]["teacher"]


def test_load_run_gives_the_weights_of_the_last_epoch(run, stripes):
    dataset = load(str(stripes))
    net = load_run(run, dataset)
    history = json.loads((run / "history.json").read_text())
    assert evaluate(net, dataset)["accuracy"] == pytest.approx(history["last_accuracy"])
    state = load_file(run / "last.safetensors")
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("variant", ["compact", "acnet", "cl,rate=2"])
def test_deployed_is_the_plain_network_and_the_same_function(variant):
    net = make_net("digitnet", variant, seed=0, num_classes=4, image_shape=SHAPE).eval()
    plain = deployed(net)
    wanted = build("digitnet", num_classes=4, in_channels=1)
    assert plain.state_dict().keys() == wanted.state_dict().keys()
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(x), net(x), rtol=1e-4, atol=1e-5)


def test_unfinished_and_foreign_runs_are_refused(run, stripes, tmp_path):
    dataset = load(str(stripes))
    record = json.loads((run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="not finished"):
        load_run(tmp_path, dataset)
    del record["configuration"]["about"]["variant"]
    (tmp_path / "run.json").write_text(json.dumps(sealed(record)))
    with pytest.raises(ValueError, match="does not say the run's variant"):
        load_run(tmp_path, dataset)


def test_export_files_compute_what_the_run_learned(run, tmp_path, capsys):
    assert main(["export", str(run), "--folder", str(tmp_path), "--int8"]) == 0
    files = ["export.json", "float32.onnx", "int8-static.onnx", "model.onnx", "model.pt2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    out = capsys.readouterr().out
    history = json.loads((run / "history.json").read_text())
    record = {row["file"]: row for row in json.loads((tmp_path / files[0]).read_text())["files"]}
    assert record["model.onnx"]["test_accuracy"] == history["last_accuracy"]
    assert record["model.onnx"]["bytes"] == (tmp_path / "model.onnx").stat().st_size
    reached = f"{history['last_accuracy']:.2%}"
    for name in ("torch", "model.onnx", "model.pt2", "float32.onnx"):
        (line,) = (line for line in out.splitlines() if line.startswith(f"│ {name} "))
        assert reached in line


def test_export_of_a_saved_net(stripes, tmp_path, capsys):
    net = make_net("digitnet", "cl,rate=2", seed=0, num_classes=4, image_shape=SHAPE)
    wf.save(net, tmp_path / "saved")
    arguments = ["export", str(tmp_path / "saved"), "--folder", str(tmp_path / "out")]
    arguments += ["--formats", "torch"]
    assert main(arguments) == 2
    assert "give model and data" in capsys.readouterr().err
    arguments += ["--model", "digitnet", "--data", str(stripes)]
    assert main(arguments) == 2
    assert "does not say how its network is fed" in capsys.readouterr().err
    assert main([*arguments, "--mean", "0.5"]) == 0
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(program(x), net.eval()(x), rtol=1e-4, atol=1e-5)


def exported(folder: Path) -> dict:
    return json.loads((folder / "export.json").read_text())


def test_export_feeds_a_net_as_it_was_trained_and_says_so(run, stripes, tmp_path, capsys):
    """Not as the data set at hand is normalised: that is what a network is tested with."""
    told = wf.Preprocessing(SHAPE, (0.2,), (0.1,), value_range=(-1.0, 1.0))
    net = make_net("digitnet", "compact", seed=0, num_classes=4, image_shape=SHAPE)
    wf.save(net, tmp_path / "saved", preprocessing=told)
    asked = ["export", str(tmp_path / "saved"), "--folder", str(tmp_path / "out")]
    asked += ["--model", "digitnet", "--data", str(stripes), "--formats", "onnx"]
    assert main([*asked, "--mean", "0.5"]) == 2
    assert "leave them out" in capsys.readouterr().err
    assert main(asked) == 0
    assert wf.export.file_preprocessing(tmp_path / "out" / "model.onnx") == told
    assert wf.Preprocessing.of_record(exported(tmp_path / "out")["preprocessing"]) == told
    data = load(str(stripes))
    fed = data.test.inputs / 255 * 2 - 1
    right = (net.eval()((fed - 0.2) / 0.1).argmax(1) == data.test.targets).double().mean()
    (row,) = (r for r in exported(tmp_path / "out")["files"] if r["file"] == "model.onnx")
    assert row["test_accuracy"] == pytest.approx(right.item())
    assert wf.Preprocessing.of_record(json.loads((run / "run.json").read_text())["preprocessing"])


def test_plain_weights_of_an_expanded_run(run, stripes, tmp_path):
    assert main(["export", str(run), "--folder", str(tmp_path), "--formats", "safetensors"]) == 0
    plain = build("digitnet", num_classes=4, in_channels=1)
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    right = load_run(run, load(str(stripes)))
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain.eval()(x), right(x), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_written_is_told_and_the_rest_is_there(run, tmp_path, capsys):
    asked = ["export", str(run), "--folder", str(tmp_path), "--formats", "safetensors"]
    asked += ["--int8-aware", "--int8-steps", "2", "--cpu", "x86-without-vnni"]
    assert main([*asked, "--int8-tolerance", "1e-9"]) == 2
    told = capsys.readouterr()
    assert "int8-aware.onnx" in told.err and "tolerance=1e-09" in told.err
    names = ["export.json", "float32.onnx", "int8-static.onnx", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    rows = {row["file"]: row for row in exported(tmp_path)["files"]}
    assert rows["int8-static.onnx"]["cpu"] == "x86-without-vnni"
    assert "differs from torch" in rows["int8-aware.onnx"]["failed"]


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none"), "--folder", str(tmp_path / "out")]) == 2
    assert f"source={str(tmp_path / 'none')!r} is no folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_teacher_is_fed_as_it_was_trained(run, stripes, tmp_path, capsys):
    """The pupil's data would reach it normalised otherwise."""
    given = np.load(stripes)
    darker = {name: given[name] // 2 if name[0] == "x" else given[name] for name in given}
    np.savez(tmp_path / "darker.npz", **darker)
    assert train(tmp_path / "darker.npz", tmp_path / "pupil", "--teacher", str(run)) == 2
    assert "is fed with mean" in capsys.readouterr().err


def test_export_refuses_another_model_than_the_run(run, tmp_path, capsys):
    assert main(["export", str(run), "--folder", str(tmp_path), "--model", "smallnet_a"]) == 2
    assert "leave --model out" in capsys.readouterr().err


def test_regression_of_an_npz_trains_is_exported_and_compared(tmp_path, capsys):
    random, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 64), ("test", 24)):
        x = random.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        halves = np.stack([x[:, :4].mean((1, 2)), x[:, 4:].mean((1, 2))], axis=1)
        arrays |= {f"x_{part}": x, f"y_{part}": halves / 64 - 2}
    np.savez(tmp_path / "halves.npz", **arrays)
    given = ["--model", "digitnet", "--data", str(tmp_path / "halves.npz"), "--task", "regress"]
    given += ["--epochs", "2", "--lr", "0.01", "--crop-padding", "0", "--no-flip"]
    run = tmp_path / "run"
    assert main(["train", *given, "--variant", "subspace,dim=40", "--folder", str(run)]) == 0
    last = json.loads((run / "history.json").read_text())["last_mse"]
    assert f"test mse {last:.4g}" in capsys.readouterr().out
    assert main(["export", str(run), "--folder", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "export.json").read_text())["files"]
    assert [row["test_mse"] for row in rows] == pytest.approx([last] * 3, rel=1e-4)
    assert main(["export", str(run), "--folder", str(tmp_path / "int8"), "--int8"]) == 2
    assert "int8" in capsys.readouterr().err
    assert not (tmp_path / "int8").exists()
    compared = ["compare", *given, "--variants", "compact", "cl,rate=2", "--seeds", "2"]
    assert main([*compared, "--folder", str(tmp_path / "compare")]) == 0
    assert "mean squared error" in (tmp_path / "compare" / "index.html").read_text()
