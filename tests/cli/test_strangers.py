"""Folders that somebody else made: what they name is not run, and nothing of the user's is lost."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import weightfold as wf
from mutation.edits import Canary
from weightfold.cli import main
from weightfold.files import write_json
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.nets import build
from weightfold.records import sealed
from weightfold.train import checkpoint

OWN = "own_networks:make"


def run(*arguments: object) -> int:
    return main([*map(str, arguments)])


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Canary:
    """Named by nothing the user says; its module can be imported."""
    canary = Canary(tmp_path / "canary")
    code = tmp_path / "code"
    code.mkdir()
    canary.plant(code)
    (code / "own_networks.py").write_text(
        "from weightfold.nets import build\n"
        "def make(num_classes, in_channels):\n"
        "    return build('digitnet', num_classes=num_classes, in_channels=in_channels)\n"
    )
    monkeypatch.chdir(code)
    return canary


def rewrite(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(sealed(data)))


def plain() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("digitnet", num_classes=4, in_channels=1)


@pytest.fixture
def bundle(domain_files, tmp_path) -> Path:
    plan = plan_sharing(plain(), "bottom", 0.5, example_input=torch.zeros(1, 1, 8, 8))
    net = share(plain(), {"birds": 4, "cars": 3}, plan)
    for name in net.domains:
        net.about[name] = {"model": "digitnet", "image_shape": [1, 8, 8], "mean": [0.5],
                           "std": [0.25]}  # fmt: skip
    wf.save(net, tmp_path / "bundle")
    return tmp_path / "bundle"


def say(bundle: Path, spec: str) -> None:
    """The bundle says that its network is `spec`."""

    def change(manifest):
        for told in manifest["levels"][0][0]["config"]["about"].values():
            told["model"] = spec

    rewrite(bundle / "manifest.json", change)


@pytest.fixture
def commands(bundle, domain_files, tmp_path):
    """Every command that builds a bundle's network."""
    birds, boats = (f"{name}={domain_files[name]}" for name in ("birds", "boats"))
    image = tmp_path / "image.png"
    from torchvision.io import write_png

    write_png(torch.zeros(1, 8, 8, dtype=torch.uint8), str(image))
    return {
        "eval": ["eval", bundle, "--domains", birds],
        "predict": ["predict", bundle, image, "--domain", "birds"],
        "export": ["export", bundle, "--folder", tmp_path / "out", "--format", "plain"],
        "add": ["add", bundle, boats, "--from-domain", "birds", "--epochs", 1],
        "serve": ["serve", bundle, "--port", "0"],
    }


@pytest.mark.parametrize("name", ["eval", "predict", "export", "add", "serve"])
def test_a_bundle_runs_no_code(name, commands, bundle, canary, capsys):
    before = {f.name: f.read_bytes() for f in bundle.iterdir()}
    for spec in canary.specs:
        say(bundle, spec)
        assert run("domains", *commands[name]) == 2
        told = capsys.readouterr().err
        assert "manifest.json" in told and spec.partition(",")[0] in told
        if ":" in spec:
            assert "--model" in told
    assert not canary.path.exists()
    assert {f.name for f in bundle.iterdir()} == set(before)


@pytest.mark.parametrize("name", ["eval", "predict", "export", "add"])
def test_code_that_the_user_gives_runs(name, commands, bundle, canary):
    say(bundle, OWN)
    assert run("domains", *commands[name], "--model", OWN) == 0


def test_another_network_than_the_bundles_is_refused(commands, bundle, canary, capsys):
    say(bundle, OWN)
    assert run("domains", *commands["eval"], "--model", "digitnet") == 2
    assert "digitnet" in (told := capsys.readouterr().err) and OWN in told


@pytest.mark.parametrize(
    "spec",
    ["mlp,width=1000000000000", "mlp,width=900000", "mlp,depth=1000000000", "mlp,depth=900000"],
)
def test_a_recorded_network_of_terabytes_is_refused(spec, commands, bundle, canary, capsys):
    say(bundle, spec)
    assert run("domains", *commands["eval"]) == 2
    assert "manifest.json asks for" in capsys.readouterr().err


def test_classes_beyond_memory_are_refused(commands, bundle, canary, capsys):
    def change(manifest):
        manifest["levels"][0][0]["config"]["classes"]["birds"] = 10**12

    rewrite(bundle / "manifest.json", change)
    for options in ([], ["--model", "digitnet"]):
        assert run("domains", *commands["eval"], *options) == 2
        assert "manifest.json" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(stripes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--epochs", 1, "--batch-size", 16, "--device", "cpu"]
    assert run("train", "--model", "digitnet", "--data", stripes, "--folder", folder, *options) == 0
    return folder


def test_a_run_runs_no_code(trained, stripes, canary, tmp_path, capsys):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    out = ["--folder", tmp_path / "out"]
    train = ["train", "--model", "digitnet", "--data", stripes, *out, "--epochs", 1]
    for spec in canary.specs:
        rewrite(folder / "run.json", lambda r, s=spec: r["configuration"]["about"].update(model=s))
        for command in (["export", folder, *out], [*train, "--teacher", folder]):
            assert run(*command) == 2
            assert "run.json" in capsys.readouterr().err
    assert not canary.path.exists() and not (tmp_path / "out").exists()


def test_a_run_of_the_users_network_is_used_when_the_user_says_so(
    trained, stripes, canary, tmp_path, capsys
):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    rewrite(folder / "run.json", lambda r: r["configuration"]["about"].update(model=OWN))
    export = ["export", folder, "--folder", tmp_path / "out", "--formats", "torch"]
    assert run(*export) == 2 and "--model" in capsys.readouterr().err
    assert run(*export, "--model", OWN) == 0
    train = ["train", "--model", OWN, "--data", stripes, "--folder", tmp_path / "taught"]
    train += ["--epochs", 1, "--teacher", folder]
    assert run(*train) == 2 and "--teacher-model" in capsys.readouterr().err
    assert run(*train, "--teacher-model", OWN) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "mlp,width=1000000000000"),
        ("variant", "cl,rate=1000000000"),
        ("variant", "os:system,command=true"),
        ("data", "os:system,command=touch canary"),
        ("data", "canary_code"),
    ],
)
def test_other_fields_of_a_run(trained, canary, tmp_path, capsys, field, value):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    rewrite(folder / "run.json", lambda r: r["configuration"]["about"].update({field: value}))
    assert run("export", folder, "--folder", tmp_path / "out") == 2
    assert value.partition(",")[0] in capsys.readouterr().err
    assert not canary.path.exists() and not Path("canary").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_in_place_of_weights(trained, stripes, canary, tmp_path, capsys, zipped):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    content = canary.zipped if zipped else canary.pickled
    pickle.loads(content) if not zipped else None
    assert zipped or canary.path.exists()
    canary.path.unlink(missing_ok=True)
    (folder / "last.safetensors").write_bytes(content)
    assert run("export", folder, "--folder", tmp_path / "out") == 2
    assert "last.safetensors" in capsys.readouterr().err
    (folder / checkpoint.LAST).write_bytes(content)
    (folder / checkpoint.HISTORY).unlink()
    options = ["--epochs", 1, "--batch-size", 16, "--device", "cpu"]
    train = ["train", "--model", "digitnet", "--data", stripes, "--folder", folder, *options]
    assert run(*train) == 2
    assert checkpoint.LAST in capsys.readouterr().err
    assert not canary.path.exists()


def test_an_experiments_page_names_no_code_and_no_path(canary, tmp_path, capsys):
    for change in ({"name": "os:system"}, {"name": "../../x"}, {"preset": "../../x"}, {"data": 3}):
        asked = {"name": "guo2020-table7", "preset": "smoke", "seeds": 1, "data": None}
        folder = tmp_path / "results"
        (folder / "a" / "b").mkdir(parents=True, exist_ok=True)
        write_json(folder / "a" / "b" / "results.json", {"asked": {**asked, **change}})
        assert run("report", folder) == 2
        assert sorted(p.name for p in tmp_path.iterdir()) == ["code", "results"]
    assert not canary.path.exists()


def sent(bundle: Path, folder: Path) -> tuple[Path, Path]:
    """The domain "cars" as it is sent, and the bundle without it."""
    Bundle(bundle).export_delta("cars", folder)
    Bundle(bundle).remove("cars")
    (bundle / "notes.txt").write_text("mine")
    (bundle / "domain-list.safetensors").write_bytes(b"also mine")
    return folder, bundle


def test_an_imported_file_overwrites_nothing(bundle, tmp_path):
    folder, bundle = sent(bundle, tmp_path / "sent")
    (file,) = folder.glob("*.safetensors")
    before = {f.name: f.read_bytes() for f in bundle.iterdir() if f.name != "manifest.json"}
    (shared,) = (name for name in before if name.startswith("shared-"))
    for name in (shared, "domain-list.safetensors"):
        shutil.copy(file, folder / name)
        rewrite(folder / "manifest.json", lambda m, n=name: m["parts"]["cars"].update(file=n))
        Bundle(bundle).import_delta(folder, "cars")
        after = {f.name: f.read_bytes() for f in bundle.iterdir()}
        assert before.items() <= after.items() and after[file.name] == file.read_bytes()
        Bundle(bundle).remove("cars")
    for name in ("notes.txt", "manifest.json", "../x.safetensors", "/etc/x.safetensors"):
        rewrite(folder / "manifest.json", lambda m, n=name: m["parts"]["cars"].update(file=n))
        with pytest.raises(ValueError, match=r"manifest\.json.*'parts\.cars\.file'"):
            Bundle(bundle).import_delta(folder, "cars")
    assert (bundle / "notes.txt").read_text() == "mine"


def test_an_imported_file_does_not_replace_one_of_its_own_name(bundle, tmp_path):
    folder, bundle = sent(bundle, tmp_path / "sent")
    (file,) = folder.glob("*.safetensors")
    (bundle / file.name).write_bytes(b"the user's")
    with pytest.raises(FileExistsError, match=file.name):
        Bundle(bundle).import_delta(folder, "cars")
    assert (bundle / file.name).read_bytes() == b"the user's"


def test_a_long_name_of_a_domain(bundle, tmp_path):
    name = "b" * 300
    net = Bundle(bundle).load(plain())
    net.add_domain(name, 3, from_domain="cars")
    Bundle(bundle).add(net, name)
    assert Bundle(bundle).domains == ["birds", "cars", name]
    loaded = Bundle(bundle).load(plain(), [name]).eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(x, domain=name), net.eval()(x, domain=name))
    wf.save(net, tmp_path / "again")
    assert all(len(f.name) < 200 for f in (tmp_path / "again").iterdir())
