"""wf.save and wf.load: what is on disk, and what is refused."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import weightfold as wf
from weightfold import Charted
from weightfold.records import sealed


@pytest.fixture
def net(cases):
    net = wf.expand(cases.Conv(), rate=2, seed=0)
    cases.shake(net)
    return net.eval()


@pytest.fixture
def x():
    return torch.randn(2, 2, 6, 6)


@pytest.fixture
def folder(net, tmp_path):
    wf.save(net, tmp_path / "net")
    return tmp_path / "net"


def tensors_file(folder):
    (file,) = folder.glob("*.safetensors")
    return file


def test_plain_module(cases, tmp_path, x):
    model = cases.Conv()
    wf.save(model, tmp_path / "plain")
    other = cases.Conv()
    loaded = wf.load(tmp_path / "plain", other)
    assert type(loaded) is type(model) and loaded is not other
    assert torch.equal(loaded.eval()(x), model.eval()(x))


def test_tied_tensors_are_stored_once(cases, tmp_path):
    net = wf.mask(cases.Tied(), {"head.weight": torch.ones(2, 6)})
    wf.save(net, tmp_path / "net")
    assert len(load_file(tensors_file(tmp_path / "net"))) == len(dict(net.named_parameters())) + 1
    loaded = wf.load(tmp_path / "net", cases.Tied())
    plain = loaded.deploy()
    assert plain.up.weight is plain.down.weight
    x = torch.randn(3, 6)
    assert torch.equal(loaded(x), net(x))


def test_a_second_save_replaces_the_first(cases, net, folder, x):
    cases.shake(net)
    wf.save(net, folder)
    assert len(list(folder.iterdir())) == 2
    assert torch.equal(wf.load(folder, cases.Conv()).eval()(x), net(x))


@pytest.mark.parametrize("failing", [1, 2])
def test_an_interrupted_save_leaves_the_earlier_one_whole(
    cases, net, folder, x, monkeypatch, failing
):
    before = net(x)
    changed = wf.expand(cases.Conv(), rate=2, seed=1)
    replace, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError("interrupted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(OSError, match="interrupted"):
        wf.save(changed, folder)
    monkeypatch.undo()
    assert torch.equal(wf.load(folder, cases.Conv()).eval()(x), before)
    assert not [f for f in folder.iterdir() if f.name.startswith(".")]
    wf.save(changed, folder)
    assert len(list(folder.iterdir())) == 2
    assert torch.equal(wf.load(folder, cases.Conv()).eval()(x), changed.eval()(x))


@pytest.mark.parametrize("failing", [1, 2])
def test_an_interrupted_first_save_can_be_repeated(cases, net, x, tmp_path, monkeypatch, failing):
    replace, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError("interrupted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(OSError, match="interrupted"):
        wf.save(net, tmp_path / "net")
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="manifest"):
        wf.load(tmp_path / "net", cases.Conv())
    wf.save(net, tmp_path / "net")
    assert torch.equal(wf.load(tmp_path / "net", cases.Conv()).eval()(x), net(x))


def test_a_folder_of_other_files_is_refused(net, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt.*new or empty folder"):
        wf.save(net, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]


def test_missing_folder_and_manifest(cases, folder):
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
        wf.load(folder / "nowhere", cases.Conv())
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
        wf.load(folder, cases.Conv())


def test_renamed_tensors_file(cases, folder):
    file = tensors_file(folder)
    file.rename(folder / "weights.safetensors")
    with pytest.raises(FileNotFoundError, match=f"{file.name} is missing"):
        wf.load(folder, cases.Conv())


@pytest.mark.parametrize("damage", ["truncated", "one bit", "swapped"])
def test_damaged_tensors_file(cases, folder, tmp_path, damage):
    file = tensors_file(folder)
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        content = content[:-100]
    elif damage == "one bit":
        content[-5] ^= 1
    else:
        wf.save(wf.expand(cases.Conv(), rate=2, seed=5), tmp_path / "other")
        content = tensors_file(tmp_path / "other").read_bytes()
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file.name} is truncated or was changed"):
        wf.load(folder, cases.Conv())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "tensors": {}}', "null"])
def test_damaged_manifest(cases, folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        wf.load(folder, cases.Conv())


def rewrite(folder, change, seal=True):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(sealed(manifest) if seal else manifest))


def test_a_later_format_is_refused(cases, folder):
    rewrite(folder, lambda m: m.update(format=99))
    with pytest.raises(ValueError, match="format 99"):
        wf.load(folder, cases.Conv())


def test_the_manifest_cannot_point_elsewhere(cases, folder, tmp_path):
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(tensors_file(folder).read_bytes())
    rewrite(folder, lambda m: m["tensors"].update(file="../outside.safetensors"))
    with pytest.raises(ValueError, match=r"manifest\.json.*'tensors\.file'.*outside\.safetensors"):
        wf.load(folder, cases.Conv())


def test_an_unknown_chart_is_refused(cases, folder):
    rewrite(folder, lambda m: m["levels"][0][0].update(kind="origami"))
    with pytest.raises(ValueError, match=r"'origami'.*expansion.*mask"):
        wf.load(folder, cases.Conv())


def test_another_width_lists_the_tensor(cases, folder):
    with pytest.raises(KeyError, match=r"another architecture.*conv1\.weight"):
        wf.load(folder, cases.Conv(width=5))


def test_another_network_lists_the_tensor(folder):
    with pytest.raises(KeyError, match=r"another architecture than this Linear.*conv1"):
        wf.load(folder, nn.Linear(2, 2))


def test_another_head_lists_its_keys(cases, folder):
    model = cases.Conv()
    model.head = nn.Sequential(nn.Linear(48, 3))
    with pytest.raises(KeyError, match=r"missing: model\.head\.0\.weight.*unexpected: model\.head"):
        wf.load(folder, model)


def test_a_plain_save_into_another_plain_model(cases, tmp_path):
    wf.save(cases.Conv(), tmp_path / "plain")
    with pytest.raises(KeyError, match=r"other shape: conv1\.weight \(4, 2, 3, 3\) instead of \(5"):
        wf.load(tmp_path / "plain", cases.Conv(width=5))


def test_three_levels(cases, tmp_path, x):
    net = wf.subspace(wf.mask(wf.expand(cases.Conv(), rate=2, seed=0),
                              {"charts.0.conv1.1.weight": torch.rand(8, 4, 3, 3) < 0.5}),
                      dim=20, seed=4)  # fmt: skip
    cases.shake(net)
    wf.save(net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", cases.Conv())
    assert isinstance(loaded, Charted)
    assert torch.equal(loaded.eval()(x), net.eval()(x))
    torch.testing.assert_close(loaded.deploy().eval()(x), net(x))


def test_loading_leaves_the_model_alone(cases, folder):
    model = cases.Conv()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    wf.load(folder, model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_formats_are_read(net, cases, folder, version):
    rewrite(
        folder, lambda m: (m.update(format=version), m.pop("parts"), m.pop("sha256")), seal=False
    )
    loaded = wf.load(folder, cases.Conv()).state_dict()
    assert all(torch.equal(t, loaded[n]) for n, t in net.state_dict().items())
