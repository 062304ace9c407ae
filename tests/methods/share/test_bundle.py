"""Bundle: a saved net of several domains, read and changed domain by domain."""

import copy
import json
import os
import re
import shutil

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.core.tensor_file import Stored
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.net import SharedNet
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.records import sealed

DOMAINS = {"birds": 5, "cars": 3, "dogs": 4}
ABOUT = {
    "birds": {"class_names": ["a", "b", "c", "d", "e"], "mean": [0.5], "image_shape": [1, 8, 8]},
    "cars": {"std": [0.25]},
}


def model(width=4):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 7),
    )  # fmt: skip


def make_plan(**choice):
    choice = {"strategy": "bottom", "fraction": 0.4, **choice}
    return plan_sharing(model(), example_input=torch.zeros(1, 1, 8, 8), **choice)


def shake(module):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = share(model(), DOMAINS, make_plan())
    shake(net)
    net.about.update(copy.deepcopy(ABOUT))
    for name in DOMAINS:
        net(torch.randn(4, 1, 8, 8), domain=name)
    return net.eval()


@pytest.fixture
def folder(net, tmp_path):
    wf.save(net, tmp_path / "bundle")
    return tmp_path / "bundle"


def bits(net):
    return {n: t.detach().numpy().tobytes() for n, t in net.state_dict().items()}


def of_domain(net, name):
    return {n: t for n, t in bits(net).items() if n.startswith(f"charts.0.domains.{name}.")}


def files(folder):
    """Name -> inode, time of change and content, of the files with tensors."""
    found = {}
    for file in folder.glob("*.safetensors"):
        stat = file.stat()
        found[file.name] = (stat.st_ino, stat.st_mtime_ns, file.read_bytes())
    return found


def file_of(folder, name=None):
    manifest = json.loads((folder / "manifest.json").read_text())
    return folder / (manifest["parts"][name] if name else manifest["tensors"])["file"]


def test_the_whole_net_comes_back(net, folder):
    x = torch.randn(3, 1, 8, 8)
    for loaded in (wf.load(folder, model()), Bundle(folder).load(model())):
        assert isinstance(loaded, SharedNet)
        assert bits(loaded) == bits(net)
        assert loaded.classes == DOMAINS and loaded.about == ABOUT
        for name in DOMAINS:
            assert torch.equal(loaded.eval()(x, domain=name), net(x, domain=name))


def test_what_the_manifest_says(folder):
    bundle = Bundle(folder)
    assert bundle.domains == list(DOMAINS) and bundle.classes == DOMAINS
    assert bundle.class_names == {"birds": ["a", "b", "c", "d", "e"], "cars": [], "dogs": []}
    assert bundle.preprocessing == {
        "birds": {"mean": [0.5], "image_shape": [1, 8, 8]}, "cars": {"std": [0.25]}, "dogs": {}
    }  # fmt: skip
    assert len(list(folder.iterdir())) == 5


def test_only_the_manifest_is_read_at_first(folder):
    for file in folder.glob("*.safetensors"):
        file.unlink()
    assert Bundle(folder).domains == list(DOMAINS)


def test_some_domains_alone(net, folder):
    file_of(folder, "cars").unlink()
    some = Bundle(folder).load(model(), domains=["dogs", "birds"])
    assert some.domains == ["dogs", "birds"] and some.about == {"birds": ABOUT["birds"]}
    assert bits(some) == {n: t for n, t in bits(net).items() if ".domains.cars." not in n}
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(some.eval()(x, domain="dogs"), net(x, domain="dogs"))


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"fraction": 0.0},
        {"fraction": 1.0},
        {"strategy": "top"},
        {"bn": "shared"},
        {"head": "shared"},
        {"fraction": 0.0, "bn": "shared", "head": "shared"},
    ],
)
def test_sizes_are_those_of_the_account(tmp_path, choice):
    domains = dict.fromkeys(DOMAINS, 4) if "head" in choice else DOMAINS
    plan = make_plan(**choice)
    net = share(model(), domains, plan)
    wf.save(net, tmp_path)
    account, bundle = plan.account(domains), Bundle(tmp_path)
    sizes = bundle.sizes()
    assert sizes.shared == account.shared.bytes
    assert sizes.domains == {name: cost.bytes for name, cost in account.domains.items()}
    assert sizes.total == account.total.bytes == sum(t.nbytes for t in net.state_dict().values())
    assert bits(bundle.load(model(), domains=["cars"])).items() <= bits(net).items()


def test_deltas_and_shared_tensors_are_those_of_the_net(net, folder):
    bundle = Bundle(folder)
    stored = [bundle.shared(), *map(bundle.delta, DOMAINS)]
    state = {n: t.numpy().tobytes() for tensors in stored for n, t in tensors.items()}
    assert state == bits(net)
    cars = bundle.delta("cars")
    assert set(cars) == set(of_domain(net, "cars")) and len(cars) == len(set(cars))
    with pytest.raises(KeyError, match="nothing"):
        cars["nothing"]


@pytest.mark.parametrize("harm", ["overwritten in place", "cut", "grown", "removed"])
def test_what_was_read_stays_whatever_happens_to_the_file(net, folder, harm):
    bundle, file = Bundle(folder), file_of(folder, "cars")
    delta, content = bundle.delta("cars"), file.read_bytes()
    if harm == "overwritten in place":
        file.write_bytes(bytes(len(content)))
    elif harm == "cut":
        os.truncate(file, 100)
    elif harm == "grown":
        file.write_bytes(content + b"0")
    else:
        file.unlink()
    # A view of mapped pages that are cut off would end the process.
    assert {n: t.numpy().tobytes() for n, t in delta.items()} == of_domain(net, "cars")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(file.name)):
        bundle.delta("cars")


def test_writing_to_a_delta_leaves_the_file_alone(folder):
    bundle, file = Bundle(folder), file_of(folder, "cars")
    before = file.read_bytes()
    for tensor in bundle.delta("cars").values():
        tensor.zero_()
    assert file.read_bytes() == before
    assert any(t.any() for t in bundle.delta("cars").values())


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_lies_about_its_tensors(header):
    content = bytearray(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="no safetensors file"):
        Stored(content)


def test_a_delta_of_another_bundle_is_refused(net, folder, tmp_path):
    shake(net)
    wf.save(net, tmp_path / "other")
    foreign = file_of(tmp_path / "other", "cars")
    shutil.copy(foreign, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    other = json.loads((tmp_path / "other" / "manifest.json").read_text())
    manifest["parts"]["cars"] = other["parts"]["cars"]
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))
    bundle = Bundle(folder)
    for use in (lambda: bundle.delta("cars"), lambda: wf.load(folder, model())):
        with pytest.raises(ValueError, match=f"{foreign.name} was saved with the shared tensors"):
            use()
    assert bundle.delta("birds")


@pytest.mark.parametrize("name", ["bird", "shared", ""])
def test_an_unknown_domain_lists_those_there_are(folder, name):
    bundle = Bundle(folder)
    for use in (
        lambda: bundle.delta(name),
        lambda: bundle.load(model(), domains=[name]),
        lambda: bundle.remove(name),
    ):
        with pytest.raises(KeyError, match=f"domain='{name}'.*birds, cars, dogs"):
            use()


@pytest.mark.parametrize("names", [[], ["cars", "cars"]])
def test_no_domain_or_one_twice(folder, names):
    with pytest.raises(ValueError, match="at least one, each once"):
        Bundle(folder).load(model(), domains=names)


def test_a_net_without_domains_is_no_bundle(tmp_path):
    wf.save(model(), tmp_path)
    with pytest.raises(ValueError, match="no saved net of several domains"):
        Bundle(tmp_path)


@pytest.mark.parametrize("key", ["classes", "about"])
@pytest.mark.parametrize("value", [None, [], {"birds": "many"}])
def test_a_manifest_that_does_not_say_its_domains(folder, key, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["levels"][0][0]["config"][key] = value
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(ValueError, match="does not say its domains"):
        Bundle(folder)


def test_a_larger_net_saved_writes_the_new_delta_alone(net, folder):
    before = files(folder)
    net.add_domain("boats", 2, from_domain="birds")
    wf.save(net, folder)
    after = files(folder)
    assert set(after) - set(before) == {file_of(folder, "boats").name}
    assert {name: after[name] for name in before} == before
    assert bits(wf.load(folder, model())) == bits(net)


def test_training_one_domain_changes_its_delta_alone(net, folder):
    before = files(folder)
    shake(net.charts[0].domains["cars"])
    wf.save(net, folder)
    after = files(folder)
    assert len(set(before) - set(after)) == 1 and len(after) == len(before)
    assert all(after[name] == before[name] for name in set(before) & set(after))


def test_add_from_a_net_with_other_domains(net, folder):
    before = files(folder)
    bundle = Bundle(folder)
    some = bundle.load(model(), domains=["birds"])
    some.add_domain("boats", 2, from_domain="birds")
    shake(some.charts[0].domains["boats"])
    some.about["boats"] = {"class_names": ["sail", "motor"]}
    some.about["cars"] = {"class_names": ["not", "asked", "for"]}
    bundle.add(some, "boats")
    after = files(folder)
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 1
    loaded = wf.load(folder, model())
    assert bits(loaded).items() >= bits(net).items()
    assert of_domain(loaded, "boats") == of_domain(some, "boats")
    assert bundle.classes == loaded.classes == {**DOMAINS, "boats": 2}
    assert loaded.about == {**ABOUT, "boats": {"class_names": ["sail", "motor"]}}


def test_what_add_refuses(net, folder):
    before = files(folder)
    bundle = Bundle(folder)
    with pytest.raises(ValueError, match=r"'cars' is in .*remove it first"):
        bundle.add(net, "cars")
    with pytest.raises(KeyError, match="the net's domains are birds, cars, dogs"):
        bundle.add(net, "boats")
    other = share(model(), {"boats": 2}, make_plan(strategy="top"))
    with pytest.raises(ValueError, match="another plan"):
        bundle.add(other, "boats")
    net.add_domain("boats", 2, from_domain="cars")
    shake(net)
    with pytest.raises(ValueError, match=r"shared tensors .* are not those of"):
        bundle.add(net, "boats")
    assert files(folder) == before and Bundle(folder).domains == list(DOMAINS)


def test_remove(net, folder):
    before, gone = files(folder), file_of(folder, "cars").name
    bundle = Bundle(folder)
    bundle.remove("cars")
    assert files(folder) == {name: found for name, found in before.items() if name != gone}
    assert bundle.domains == ["birds", "dogs"]
    net.remove_domain("cars")
    assert bits(wf.load(folder, model())) == bits(net)
    bundle.remove("dogs")
    with pytest.raises(ValueError, match="'birds' is the only domain"):
        bundle.remove("birds")


def test_what_was_written_meanwhile_stays(net, folder):
    bundle = Bundle(folder)
    net.add_domain("fish", 2, from_domain="cars")
    Bundle(folder).add(net, "fish")
    with pytest.raises(ValueError, match="'fish' is in"):
        bundle.add(net, "fish")
    bundle.remove("birds")
    assert Bundle(folder).domains == bundle.domains == ["cars", "dogs", "fish"]
    assert len(bundle.delta("fish")) > 0


def test_an_interrupted_removal_leaves_the_domain(net, folder, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError("interrupted")))
    with pytest.raises(OSError, match="interrupted"):
        Bundle(folder).remove("cars")
    assert bits(wf.load(folder, model())) == bits(net)


def test_a_delta_goes_from_bundle_to_bundle(net, folder, tmp_path):
    target = Bundle(shutil.copytree(folder, tmp_path / "target"))
    delta = file_of(folder, "cars")
    target.remove("cars")
    Bundle(folder).export_delta("cars", tmp_path / "sent")
    sent = {f.name for f in (tmp_path / "sent").iterdir()}
    assert sent == {delta.name, "manifest.json"}
    target.import_delta(tmp_path / "sent", "cars")
    assert file_of(target.folder, "cars").read_bytes() == delta.read_bytes()
    assert target.domains == ["birds", "dogs", "cars"]
    assert target.about["cars"] == ABOUT["cars"]
    assert bits(wf.load(target.folder, model())) == bits(net)
    with pytest.raises(FileExistsError, match="new or empty"):
        Bundle(folder).export_delta("cars", tmp_path / "sent")


def test_what_import_refuses(net, folder, tmp_path):
    target = Bundle(shutil.copytree(folder, tmp_path / "target"))
    with pytest.raises(ValueError, match=r"'cars' is in .*remove it first"):
        target.import_delta(folder, "cars")
    with pytest.raises(KeyError, match=r"'boats'; the domains of .* birds, cars, dogs"):
        target.import_delta(folder, "boats")
    target.remove("cars")
    file = file_of(folder, "cars")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"{file.name} is truncated or was changed"):
        target.import_delta(folder, "cars")
    file.write_bytes(content)
    shake(net)
    wf.save(net, folder)
    with pytest.raises(ValueError, match="only bundles that share them exchange domains"):
        target.import_delta(folder, "cars")
    assert target.domains == Bundle(target.folder).domains == ["birds", "dogs"]


def test_charts_above_the_sharing(net, tmp_path):
    small = wf.subspace(net, dim=3, where="charts.0.domains.cars.0.weight", seed=1)
    shake(small)
    wf.save(small, tmp_path)
    bundle = Bundle(tmp_path)
    assert "charts.0.psi" in bundle.delta("cars")
    assert bits(bundle.load(model())) == bits(small)
    for use in (
        lambda: bundle.load(model(), domains=["birds"]),
        lambda: bundle.remove("cars"),
        lambda: bundle.export_delta("cars", tmp_path / "sent"),
    ):
        with pytest.raises(ValueError, match="charts above the sharing"):
            use()


def test_what_is_told_must_be_json(net, folder):
    net.about["cars"]["mean"] = torch.zeros(1)
    shake(net)
    before = files(folder)
    with pytest.raises(TypeError, match="JSON values: Object of type Tensor"):
        wf.save(net, folder)
    assert files(folder) == before


def test_another_model_is_refused(folder):
    with pytest.raises(KeyError, match="another architecture"):
        Bundle(folder).load(model(width=5))
