"""Hashed tensor files, and what a saved net may ask for before memory is taken."""

import json

import pytest
import torch
from safetensors.torch import save_file

import weightfold as wf
from weightfold.core.tensor_file import read_tensors, write_tensors
from weightfold.records import sealed


@pytest.fixture
def tensors():
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    return {"b": a, "a": b, "half": a.bfloat16(), "mask": a > 0, "one": torch.tensor(3), "tied": a}


def test_what_is_written_is_read(tensors, tmp_path):
    write_tensors(tmp_path / "a.safetensors", tensors)
    found = read_tensors(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in tensors.items())


def test_a_file_from_elsewhere_has_no_hash(tensors, tmp_path):
    del tensors["tied"]
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    assert read_tensors(tmp_path / "a.safetensors").keys() == tensors.keys()


@pytest.mark.parametrize("damage", ["bit", "names", "label", "name of the label", "cut", "pickle"])
def test_damage_is_seen(tensors, tmp_path, damage):
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors)
    content = bytearray(path.read_bytes())
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    swapped = bytes(header).replace(b'"a"', b'"x"').replace(b'"b"', b'"a"').replace(b'"x"', b'"b"')
    {
        "bit": lambda: content.__setitem__(-1, content[-1] ^ 1),
        "names": lambda: content.__setitem__(slice(8, 8 + len(header)), swapped),
        "label": lambda: content.__setitem__(content.index(b"sha256") + 1, ord("e")),
        "name of the label": lambda: content.__setitem__(content.index(b"weightfold"), ord("v")),
        "cut": lambda: content.pop(),
        "pickle": lambda: content.__setitem__(slice(None), b"\x80\x04N."),
    }[damage]()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        read_tensors(path)


def rewrite(folder, change):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(sealed(data)))


@pytest.mark.parametrize("dim", [10**6, 10**13, -1, 0, "7", 1e308, None, [3]])
def test_a_dimension_is_compared_before_memory_is_taken(cases, tmp_path, dim):
    wf.save(wf.subspace(cases.Conv(), dim=3, seed=1), tmp_path)
    rewrite(tmp_path, lambda m: m["levels"][0][0]["config"].update(dim=dim))
    with pytest.raises(KeyError, match=f"{tmp_path.name} was saved from another architecture"):
        wf.load(tmp_path, cases.Conv())


@pytest.mark.parametrize("width", [10**9, 10**13])
def test_a_width_is_compared_before_memory_is_taken(cases, tmp_path, width):
    wf.save(wf.expand(cases.Conv(), rate=2, seed=0), tmp_path)

    def change(manifest):
        layers = manifest["levels"][0][0]["config"]["layers"]
        next(iter(layers.values()))["channels"][1] = width

    rewrite(tmp_path, change)
    with pytest.raises(KeyError, match="was saved from another architecture"):
        wf.load(tmp_path, cases.Conv())


def test_links_are_refused(cases, tmp_path):
    net = cases.Conv()
    wf.save(net, tmp_path / "net")
    (file,) = (tmp_path / "net").glob("*.safetensors")
    for path in (file, tmp_path / "net" / "manifest.json"):
        moved = path.rename(tmp_path / path.name)
        path.symlink_to(moved)
        with pytest.raises(ValueError, match=rf"{path.name} is a link"):
            wf.load(tmp_path / "net", net)
        path.unlink()
        moved.rename(path)
    (tmp_path / "link").symlink_to(tmp_path / "net")
    wf.load(tmp_path / "link", net)


def test_a_file_of_the_users_that_is_called_alike_stays(cases, tmp_path):
    wf.save(cases.Conv(), tmp_path)
    (tmp_path / "tensors-mine.safetensors").write_bytes(b"mine")
    wf.save(cases.Conv(), tmp_path)
    assert (tmp_path / "tensors-mine.safetensors").read_bytes() == b"mine"
