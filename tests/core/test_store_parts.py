"""wf.save and wf.load of nets in parts: one shared file and one a part; saves that are killed."""

import copy
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import weightfold as wf
from weightfold import Charted
from weightfold.core.chart import Chart
from weightfold.core.mixins import FilePerPart
from weightfold.core.store import read_state
from weightfold.records import sealed


class Sum(FilePerPart, Chart):
    """head.bias = base + the sum of what each part adds."""

    kind = "sum"

    def __init__(self, base, parts):
        super().__init__()
        self.base = nn.Parameter(base.detach().clone())
        self.parts = nn.ParameterDict({p: nn.Parameter(torch.randn(base.shape)) for p in parts})

    def forward(self, **at):
        return {"head.bias": self.base + sum(self.parts.values())}

    def stored_in(self, name):
        kind, _, rest = name.partition(".")
        return rest if kind == "parts" else None

    def config(self):
        return {"parts": list(self.parts)}

    @classmethod
    def build(cls, net, *, parts):
        return cls(net.head.bias, parts)


@pytest.fixture
def sums(cases):
    """Nets with a chart of parts: a function of the parts' names."""
    model = cases.Conv()
    return lambda *parts: Charted(model, [Sum.build(model, parts=list(parts))])


@pytest.fixture
def parts(sums, tmp_path):
    """A net of the parts "a" and "b", and its folder."""
    net = sums("a", "b")
    wf.save(net, tmp_path / "parts")
    return net, tmp_path / "parts"


def bits(net):
    return {n: t.detach().numpy().tobytes() for n, t in net.state_dict().items()}


def inodes(folder):
    """Name -> inode and time of change, of the files with tensors."""
    found = {f.name: f.stat() for f in folder.glob("*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def rewrite(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(sealed(manifest)))


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def file_of(folder, part=None):
    manifest = manifest_of(folder)
    return folder / (manifest["parts"][part] if part else manifest["tensors"])["file"]


def test_each_part_has_a_file(parts, cases):
    net, folder = parts
    assert len(list(folder.iterdir())) == 4
    assert re.fullmatch(r"shared-\w{12}\.safetensors", file_of(folder).name)
    assert re.fullmatch(r"domain-a-\w{12}\.safetensors", file_of(folder, "a").name)
    assert list(load_file(file_of(folder, "b"))) == ["charts.0.parts.b"]
    stored = [name for file in folder.glob("*.safetensors") for name in load_file(file)]
    assert sorted(stored) == sorted(net.state_dict())
    assert bits(wf.load(folder, cases.Conv())) == bits(net)


def test_one_part_alone_can_be_read(parts):
    net, folder = parts
    state = read_state(folder, manifest_of(folder), ["b"])
    assert set(net.state_dict()) - set(state) == {"charts.0.parts.a"}


def test_a_part_added_writes_that_part_alone(parts, sums, cases):
    net, folder = parts
    before = inodes(folder)
    more = sums("a", "b", "c")
    more.load_state_dict(net.state_dict(), strict=False)
    wf.save(more, folder)
    after = inodes(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {file_of(folder, "c").name}
    assert bits(wf.load(folder, cases.Conv())) == bits(more)


def test_a_part_changed_or_removed_leaves_the_others(parts, sums):
    net, folder = parts
    before, gone = inodes(folder), file_of(folder, "a")
    with torch.no_grad():
        net.charts[0].parts["a"].add_(1)
    wf.save(net, folder)
    after = inodes(folder)
    assert set(before) - set(after) == {gone.name}
    assert len(after) == 3 and all(after[n] == before[n] for n in set(before) & set(after))
    less = sums("b")
    less.load_state_dict({n: t for n, t in net.state_dict().items() if not n.endswith(".a")})
    wf.save(less, folder)
    assert set(inodes(folder)) == {file_of(folder).name, file_of(folder, "b").name} < set(before)


def test_parts_follow_the_shared_tensors(parts, cases):
    net, folder = parts
    before = inodes(folder)
    with torch.no_grad():
        net.charts[0].base.add_(1)
    wf.save(net, folder)
    assert not set(inodes(folder)) & set(before)
    assert bits(wf.load(folder, cases.Conv())) == bits(net)


def test_a_damaged_file_is_written_again(parts, cases):
    net, folder = parts
    file_of(folder, "a").write_bytes(b"")
    wf.save(net, folder)
    assert bits(wf.load(folder, cases.Conv())) == bits(net)


def put(source, target, part, into=None):
    """Copy a part's file between folders and name it in the manifest, as a tamperer would."""
    entry = manifest_of(source)["parts"][part]
    (target / entry["file"]).write_bytes((source / entry["file"]).read_bytes())
    rewrite(target, lambda m: m["parts"].update({into or part: entry}))
    return entry["file"]


def test_a_part_with_another_base_is_refused(parts, sums, cases, tmp_path):
    _, folder = parts
    other = sums("a", "b")
    cases.shake(other)
    wf.save(other, tmp_path / "other")
    name = put(tmp_path / "other", folder, "a")
    with pytest.raises(ValueError, match=rf"{name} was saved with the shared tensors \w+, but"):
        wf.load(folder, cases.Conv())


def test_a_part_under_another_name_is_refused(parts, cases):
    _, folder = parts
    name = put(folder, folder, "b", into="a")
    with pytest.raises(ValueError, match=f"{name} holds 'b', where the manifest says 'a'"):
        wf.load(folder, cases.Conv())
    rewrite(folder, lambda m: m["tensors"].update(m["parts"]["b"]))
    with pytest.raises(ValueError, match=f"{name} holds 'b', where the manifest says None"):
        wf.load(folder, cases.Conv())


@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing"])
def test_a_damaged_part(parts, cases, damage):
    _, folder = parts
    file = file_of(folder, "b")
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[:-1])
    elif damage == "one bit":
        content[-1] ^= 1
        file.write_bytes(content)
    error = FileNotFoundError if damage == "missing" else ValueError
    with pytest.raises(error, match=f"{file.name} is (missing|truncated or was changed)"):
        wf.load(folder, cases.Conv())


def test_no_pickle_is_read(parts, cases):
    _, folder = parts
    file = file_of(folder, "b")
    torch.save({"charts.0.parts.b": torch.zeros(3)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    rewrite(folder, lambda m: m["parts"]["b"].update(sha256=digest))
    with pytest.raises(ValueError, match=rf"{file.name} .* no safetensors file"):
        wf.load(folder, cases.Conv())


def test_a_part_must_do_for_a_file_name(sums, tmp_path):
    with pytest.raises(ValueError, match=r"part '/etc/a' names a file"):
        wf.save(sums("/etc/a"), tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_what_a_chart_above_adds_lies_with_what_it_computes(sums, cases, tmp_path):
    net = wf.subspace(sums("a", "b"), dim=2, where="charts.0.parts.a", seed=1)
    cases.shake(net)
    wf.save(net, tmp_path / "net")
    assert "charts.0.psi" in load_file(file_of(tmp_path / "net", "a"))
    assert list(load_file(file_of(tmp_path / "net", "b"))) == ["model.charts.0.parts.b"]
    assert bits(wf.load(tmp_path / "net", cases.Conv())) == bits(net)
    wide = wf.subspace(sums("a", "b"), dim=2, where=["charts.0.parts.*"], seed=1)
    wf.save(wide, tmp_path / "wide")
    assert set(manifest_of(tmp_path / "wide")["parts"]) == set()


def kill_at(call, net, folder):
    """Save, and be killed at the given call that changes the folder; in a process of its own."""
    count = itertools.count(1)

    def watch(function):
        def watched(*args, **kwargs):
            if next(count) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return watched

    for name in ("replace", "unlink", "write_bytes", "write_text"):
        setattr(Path, name, watch(getattr(Path, name)))
    wf.save(net, folder)


def run(target, *args):
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def test_killed_at_every_step_of_a_save(parts, cases):
    old, folder = parts
    new = copy.deepcopy(old)
    cases.shake(new)
    whole = [bits(old), bits(new)]
    outcomes = []
    for call in itertools.count(1):
        wf.save(old, folder)
        (process := run(kill_at, call, new, folder)).join()
        outcomes.append(whole.index(bits(wf.load(folder, cases.Conv()))))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    wf.save(old, folder)
    assert len(list(folder.iterdir())) == 4, "a killed save leaves nothing behind for good"
    # Three files and the manifest, each written, renamed and its temporary name unlinked; then
    # three stale files and the lock. The save is in force from the manifest's renaming on.
    assert outcomes == [0] * 11 + [1] * 6


def save_for_ever(nets, folder):
    for net in itertools.cycle(nets):
        wf.save(net, folder)


def test_killed_at_any_time(parts, cases):
    old, folder = parts
    new = copy.deepcopy(old)
    cases.shake(new)
    wait = random.Random(0)
    for _ in range(20):
        process = run(save_for_ever, [new, old], folder)
        time.sleep(wait.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert bits(wf.load(folder, cases.Conv())) in (bits(old), bits(new))
    wf.save(old, folder)
    assert len(list(folder.iterdir())) == 4
