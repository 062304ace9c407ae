"""`weightfold domains`, from training to serving, on tiny data."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.io import write_png

import weightfold as wf
from weightfold.cli import main
from weightfold.data import load
from weightfold.export.domains import PerDomainReport, bundle_files
from weightfold.methods.share.bundle import Bundle
from weightfold.nets import build
from weightfold.train.domains.bundles import open_bundle

QUICK = ["--epochs", "4", "--batch-size", "16", "--lr", "0.05"]


def run(*arguments: object) -> int:
    return main(["domains", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def specs(domain_files) -> dict[str, str]:
    return {name: f"{name}={path}" for name, path in domain_files.items()}


@pytest.fixture(scope="module")
def trained(specs, tmp_path_factory) -> Path:
    """Folder of `train`: two domains, shared at the bottom and independent, two seeds."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    assert train(specs, folder) == 0
    return folder


def train(specs, folder, *options) -> int:
    strategies = [] if "--strategies" in options else ["--strategies", "bottom", "independent"]
    return run(
        "train", "--model", "digitnet", "--domains", specs["birds"], specs["cars"], "--seeds", 2,
        "--folder", folder, "--fraction", 0.5, *strategies, *QUICK, *options,
    )  # fmt: skip


@pytest.fixture
def bundle(trained, tmp_path) -> Path:
    """A copy of the bundle alone, without the folder it was trained in."""
    return Path(shutil.copytree(trained / "bottom" / "bundle", tmp_path / "bundle"))


def accuracies(bundle: Path, *domains: str) -> dict[str, float]:
    out = bundle.parent / "accuracies.json"
    assert run("eval", bundle, "--domains", *domains, "--out", out) == 0
    return json.loads(out.read_text())["accuracy"]


def test_the_record_says_what_the_runs_reached(trained):
    rows = list(csv.DictReader((trained / "runs.csv").read_text().splitlines()))
    assert [(row["line"], row["seed"]) for row in rows] == [
        ("bottom", "0"), ("bottom", "1"), ("independent", "0"), ("independent", "1"),
    ]  # fmt: skip
    for row in rows:
        for name in ("birds", "cars"):
            home = trained / row["line"] / (name if row["line"] == "independent" else "")
            history = json.loads((home / f"seed{row['seed']}" / "history.json").read_text())
            wanted = 100 * history["last_values"][name]
            assert float(row[f"accuracy/{name}"]) == pytest.approx(wanted)
    page = (trained / "index.html").read_text()
    assert all(word in page for word in ("bottom against independent", "birds", "own weights"))


def test_bytes_of_the_page_are_those_on_disk(trained):
    rows = list(csv.DictReader((trained / "runs.csv").read_text().splitlines()))
    sizes = Bundle(trained / "bottom" / "bundle").sizes()
    assert (int(rows[0]["bytes"]), int(rows[0]["shared_bytes"])) == (sizes.total, sizes.shared)
    whole = [build("digitnet", num_classes=n, in_channels=1) for n in (4, 3)]
    assert int(rows[-1]["parameters"]) == sum(p.numel() for m in whole for p in m.parameters())


def test_independent_networks_take_as_many_steps(specs, tmp_path):
    """Of 48 and 20 images in batches of 16, joint epochs have 3 steps of both."""
    few = specs["cars"] + ",limit=20"
    assert train({**specs, "cars": few}, tmp_path, "--strategies", "independent") == 0
    for name in ("birds", "cars"):
        run_json = json.loads((tmp_path / "independent" / name / "seed0" / "run.json").read_text())
        assert run_json["configuration"]["joint"]["epoch"] == 3
        assert list(run_json["configuration"]["tasks"]) == [name]


def test_a_bundle_tells_all_that_serving_needs(trained, specs, domain_files):
    bundle = Bundle(trained / "bottom" / "bundle")
    data = load(str(domain_files["cars"]))
    assert bundle.classes == {"birds": 4, "cars": 3}
    assert bundle.about["cars"] == {
        "model": "digitnet",
        "class_names": ["0", "1", "2"],
        "image_shape": [1, 8, 8],
        "mean": list(data.mean),
        "std": list(data.std),
        "value_range": [0.0, 1.0],
    }


def test_eval_measures_the_first_seeds_last_epoch(trained, bundle, specs):
    history = json.loads((trained / "bottom" / "seed0" / "history.json").read_text())
    assert accuracies(bundle, specs["birds"], specs["cars"]) == history["last_values"]
    assert accuracies(bundle, specs["cars"]) == {"cars": history["last_values"]["cars"]}


def test_eval_normalises_as_in_training(bundle, domain_files, specs, tmp_path):
    """The same test images beside darker training images give the same accuracy."""
    arrays = dict(np.load(domain_files["birds"]))
    np.savez(tmp_path / "dark.npz", **{**arrays, "x_train": arrays["x_train"] // 4})
    dark = accuracies(bundle, f"birds={tmp_path / 'dark.npz'}")
    assert dark == accuracies(bundle, specs["birds"])


def test_repeating_trains_nothing_and_keeps_an_added_domain(trained, bundle, specs, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "bottom" / "bundle")
    Bundle(bundle).remove("cars")
    bundle.rename(folder / "bottom" / "bundle")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("last.pt")}
    assert train(specs, folder) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("last.pt")} == before
    assert Bundle(folder / "bottom" / "bundle").domains == ["birds"]


def test_another_run_in_the_folder_is_refused(trained, specs, capsys):
    assert train(specs, trained, "--lr", "0.01") == 2
    assert "recipe.lr: 0.05 there, 0.01 now" in capsys.readouterr().err


def test_a_plan_kept_is_what_training_uses(specs, tmp_path):
    plan = tmp_path / "plan.json"
    made = ["--heads", "a=2", "--image-shape", 1, 8, 8, "--num-filters", 7, "--strategy", "top"]
    assert run("plan", "--model", "digitnet", *made, "--out", plan) == 0
    arguments = ["--domains", specs["birds"], specs["cars"], "--folder", tmp_path / "out"]
    assert run("train", "--model", "digitnet", *arguments, "--plan", plan, *QUICK[2:]) == 0
    bundle, model, _ = open_bundle(tmp_path / "out", None)
    net = bundle.load(model)
    assert isinstance(net, wf.SharedNet)
    assert {p: sum(m) for p, m in net.sharing.layout.own.items()} == {"conv2": 7}


def test_training_starts_from_weights_and_seeds_differ(specs, tmp_path):
    """At a learning rate of nearly nothing, shared filters stay what the file says."""
    from safetensors.torch import save_file

    state = {
        n: t + 0.01 for n, t in build("digitnet", num_classes=9, in_channels=1).state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    options = ["--strategies", "bottom", "--weights", tmp_path / "w.safetensors", "--lr", "1e-30"]
    assert train(specs, tmp_path / "out", *options) == 0
    nets = [
        load_file(tmp_path / "out" / "bottom" / f"seed{seed}" / "last.safetensors")
        for seed in (0, 1)
    ]
    torch.testing.assert_close(nets[0]["model.fc1.weight"], state["fc1.weight"])
    heads = [net["charts.0.domains.cars.fc2.weight"] for net in nets]
    assert not torch.equal(*heads)


@pytest.mark.parametrize("start", ["--from-domain", "--weights"])
def test_add_writes_one_file_and_changes_nothing_else(start, bundle, specs, tmp_path, capsys):
    from safetensors.torch import save_file

    weights = tmp_path / "w.safetensors"
    save_file(build("digitnet", num_classes=5, in_channels=1).state_dict(), weights)
    before, reached = contents(bundle), accuracies(bundle, specs["birds"], specs["cars"])
    given = [start, "birds" if start == "--from-domain" else weights]
    assert run("add", bundle, specs["boats"], *given, "--folder", tmp_path / "run", *QUICK) == 0
    out = capsys.readouterr().out
    after = contents(bundle)
    (new,) = after.keys() - before.keys()
    assert new.startswith("domain-boats-")
    assert before.items() <= after.items()
    assert f"{len(before)} files of {bundle} are unchanged" in out
    assert f"new: {new}, {len(after[new]):,} bytes" in out
    found = accuracies(bundle, specs["birds"], specs["cars"], specs["boats"])
    assert reached.items() <= found.items()
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert found["boats"] == history["last_accuracy"]
    assert found["boats"] > 0.8


def test_add_trains_what_the_domain_owns_and_leaves_shared_statistics(specs, tmp_path):
    """With shared batch norm too: its running statistics do not move with the new images."""
    options = ["--strategies", "bottom", "--bn", "shared"]
    assert train(specs, tmp_path / "out", *options) == 0
    bundle = tmp_path / "out" / "bottom" / "bundle"
    before = contents(bundle)
    arguments = ["--from-domain", "cars", "--folder", tmp_path / "run", *QUICK]
    assert run("add", bundle.parent, specs["boats"], *arguments) == 0
    assert before.items() <= contents(bundle).items()
    last = load_file(tmp_path / "run" / "last.safetensors")
    for name, tensor in Bundle(bundle).shared().items():
        assert torch.equal(last[name], tensor), name
    first = load_file(bundle / next(name for name in before if name.startswith("domain-cars")))
    moved = {n for n, t in first.items() if not torch.equal(t, last[n.replace("cars", "boats")])}
    assert {n for n in first if "conv" in n} <= moved


def test_add_goes_on_where_it_was_stopped(bundle, specs, tmp_path):
    arguments = ["--from-domain", "cars", *QUICK]
    assert run("add", bundle, specs["boats"], *arguments) == 0
    assert (tmp_path / "bundle-add-boats" / "history.json").exists()
    first = contents(bundle)
    Bundle(bundle).remove("boats")
    assert run("add", bundle, specs["boats"], *arguments) == 0
    assert contents(bundle) == first


@pytest.mark.parametrize(
    ("domain", "options", "said"),
    [
        ("birds", ["--from-domain", "cars"], "domain 'birds' is in"),
        ("boats", [], "give a start for the new domain: from_domain, one of birds, cars"),
        ("boats", ["--from-domain", "crs"], "from_domain='crs'; the domains are birds, cars"),
        ("boats", ["--from-domain", "cars", "--model", "smallnet_a"], "is of digitnet"),
        ("empty", ["--from-domain", "cars"], "not empty"),
    ],
)
def test_add_refuses_before_work(domain, options, said, bundle, specs, tmp_path, capsys):
    before = contents(bundle)
    assert run("add", bundle, specs[domain], *options, "--folder", tmp_path / "run") == 2
    assert said in capsys.readouterr().err
    assert contents(bundle) == before
    assert not (tmp_path / "run").exists()


def test_predict_names_the_class_of_files(bundle, domain_files, tmp_path, capsys):
    data = load(str(domain_files["birds"]))
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, data.test.inputs[:3], strict=True):
        write_png(image, str(file))
    _, model, _ = open_bundle(bundle, None)
    capsys.readouterr()
    assert run("predict", bundle, *files, "--domain", "birds", "--top", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    net = Bundle(bundle).load(model, ["birds"]).eval()
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))
    x = (data.test.inputs[:3] / 255 - mean) / std
    values, classes = net(x, domain="birds").softmax(1).topk(2)
    for line, file, value, found in zip(lines, files, values, classes, strict=True):
        wanted = ", ".join(f"{c} {v:.2%}" for c, v in zip(found.tolist(), value.tolist()))  # noqa: B905
        assert line == f"{file}: {wanted}"


def test_predict_refuses(bundle, tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"no image")
    assert run("predict", bundle, tmp_path / "x.png", "--domain", "brids") == 2
    assert "domain='brids'; the domains are birds, cars" in capsys.readouterr().err
    assert run("predict", bundle, tmp_path / "x.png", "--domain", "birds") == 2
    assert "x.png: not an image" in capsys.readouterr().err
    assert run("predict", bundle, tmp_path / "y.png", "--domain", "birds") == 2
    assert "y.png' is no file" in capsys.readouterr().err


def test_remove_leaves_the_others(bundle, specs, capsys):
    before, reached = contents(bundle), accuracies(bundle, specs["cars"])
    assert run("remove", bundle, "birds") == 0
    after = contents(bundle)
    assert after.items() <= before.items()
    assert [name for name in before if name not in after] == [
        name for name in before if name.startswith("domain-birds-")
    ]
    assert accuracies(bundle, specs["cars"]) == reached
    assert run("remove", bundle, "cars") == 2
    assert run("remove", bundle, "birds") == 2
    err = capsys.readouterr().err
    assert "only domain" in err
    assert "domain='birds'; the domains of" in err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"birds": "brids"}, "domain='brids'; the domains are birds, cars"),
        ({"birds.npz": "cars.npz"}, "has 4 classes in"),
        (
            {"birds.npz": "birds.npz,size=9"},
            "takes images of (1, 8, 8), the data set 'birds' has (1, 9, 9)",
        ),
        ({"birds.npz": "birds.npz,rgb=true"}, "the data set 'birds' has (3, 8, 8)"),
    ],
)
def test_eval_refuses_other_data(changes, said, bundle, specs, capsys):
    (change,) = changes.items()
    name, _, path = specs["birds"].partition("=")
    given = f"{name}={path}".replace(*change, 1) if "npz" in change[0] else f"brids={path}"
    assert run("eval", bundle, "--domains", given) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_several_bundles_wants_one_named(trained, specs, tmp_path, capsys):
    for strategy in ("bottom", "top"):
        shutil.copytree(trained / "bottom" / "bundle", tmp_path / strategy / "bundle")
    assert run("eval", tmp_path, "--domains", specs["birds"]) == 2
    assert f"{tmp_path / 'bottom' / 'bundle'}, {tmp_path / 'top'}" in capsys.readouterr().err
    assert run("eval", tmp_path / "top" / "bundle", "--domains", specs["birds"]) == 0


def test_a_net_saved_without_a_spec_wants_the_model(trained, specs, tmp_path, capsys):
    bundle, model, _ = open_bundle(trained, None)
    net = bundle.load(model)
    for about in net.about.values():
        del about["model"]
    wf.save(net, tmp_path / "saved")
    assert run("eval", tmp_path / "saved", "--domains", specs["birds"]) == 2
    assert "give --model" in capsys.readouterr().err
    assert run("eval", tmp_path / "saved", "--domains", specs["birds"], "--model", "digitnet") == 0


@pytest.mark.parametrize("form", ["plain", "torch-export"])
def test_export_is_compared_with_torch(form, bundle, specs, tmp_path, capsys):
    assert run("export", bundle, "--folder", tmp_path / "out", "--format", form) == 0
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    for row in record["files"]:
        assert (tmp_path / "out" / row["file"]).stat().st_size == row["bytes"]
        assert row["from_torch"] <= 1e-5
        assert row["file"] in capsys.readouterr().out or form == "plain"
    assert record["domains"]["cars"]["classes"] == 3


def test_a_plain_export_is_the_network_of_that_domain(bundle, specs, tmp_path):
    arguments = ["--format", "plain", "--domains", "cars"]
    assert run("export", bundle, "--folder", tmp_path / "out", *arguments) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cars.safetensors",
        "export.json",
    ]
    plain = build("digitnet", num_classes=3, in_channels=1).eval()
    plain.load_state_dict(load_file(tmp_path / "out" / "cars.safetensors"))
    _, model, _ = open_bundle(bundle, None)
    net = Bundle(bundle).load(model).eval()
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(x), net(x, domain="cars"))


def test_a_graph_per_domain_gets_each_domains_images(bundle, tmp_path, monkeypatch):
    calls = []

    def write(net, examples, folder, *, tolerance):
        calls.append({name: tuple(x.shape) for name, x in examples.items()})
        sizes, apart = {"cars": 5, "birds": 6}, {"cars": 1e-7, "birds": 2e-7}
        return PerDomainReport(str(folder), 100, sizes, {"cars": 50, "birds": 60}, apart)

    monkeypatch.setattr(bundle_files, "to_onnx_per_domain", write)
    arguments = ["--format", "onnx-per-domain", "--domains", "cars", "birds"]
    assert run("export", bundle, "--folder", tmp_path / "out", *arguments) == 0
    assert calls == [{"cars": (1, 1, 8, 8), "birds": (1, 1, 8, 8)}]
    files = json.loads((tmp_path / "out" / "export.json").read_text())["files"]
    assert [(row["file"], row["bytes"], row["from_torch"]) for row in files] == [
        ("shared weights", 100, None), ("cars.onnx", 55, 1e-7), ("birds.onnx", 66, 2e-7),
    ]  # fmt: skip


def test_one_graph_takes_images_of_one_size(bundle, tmp_path, capsys):
    opened, model, _ = open_bundle(bundle, None)
    net = opened.load(model)
    net.about["cars"]["image_shape"] = [1, 9, 9]
    wf.save(net, bundle)
    assert run("export", bundle, "--folder", tmp_path / "out") == 2
    assert "one graph takes images of one size" in capsys.readouterr().err


def test_folding_is_for_plain_networks(bundle, tmp_path, capsys):
    assert run("export", bundle, "--folder", tmp_path / "out", "--fold-bn") == 2
    assert "for the format plain, not onnx" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_serve_hands_over_engine_and_limits(bundle, monkeypatch, capsys):
    import weightfold.serve.server as server

    calls = []
    monkeypatch.setattr(server, "serve", lambda engine, **given: calls.append((engine, given)))
    memory = Bundle(bundle).sizes().total
    options = ["--max-batch", 5, "--max-wait-ms", 3, "--max-bytes", 999, "--memory", memory]
    assert run("serve", bundle, "--port", 0, *options) == 0
    ((engine, given),) = calls
    assert engine.domains == ["birds", "cars"]
    assert engine.cache.max_bytes == memory - Bundle(bundle).sizes().shared
    assert (given["host"], given["port"]) == ("127.0.0.1", 0)
    limits = given["limits"]
    assert (limits.max_batch, limits.max_wait_ms, limits.max_bytes) == (5, 3.0, 999)
    assert "2 domains: birds, cars" in capsys.readouterr().out
