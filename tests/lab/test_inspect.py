import html
import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.data import Dataset, Examples
from weightfold.files import write_json
from weightfold.lab import inspect as module
from weightfold.lab.answers import TITLES
from weightfold.lab.budget import DEMANDS, Sizes
from weightfold.lab.probing import read_finding
from weightfold.probes.finding import Finding
from weightfold.probes.intrinsic.finding import IntrinsicDimension, Trained
from weightfold.probes.layers.finding import LayerReset
from weightfold.probes.memory.finding import Memorization
from weightfold.probes.tickets.finding import LotteryTicket
from weightfold.report.page import Section
from weightfold.train.progress import Progress

TINY = {
    "layer-reset": Sizes(64, 32, 2, 16, 2, {"bn": "keep", "reset_to": [0, 1], "draws": 1}),
    "memorization": Sizes(
        32, 32, 20, 16, 2, {"conditions": ["true", "random-labels"], "fractions": []}
    ),
    "lottery-ticket": Sizes(64, 32, 4, 16, 2, {"rounds": 1, "fraction": 0.5, "every": 4}),
    "intrinsic-dimension": Sizes(64, 32, 4, 16, 2, {"start": 4, "d_max": 64, "resolution": 1.0}),
}


@pytest.fixture
def data() -> Dataset:
    """Eight numbers, of which the largest of the first three tells the class."""
    x = torch.rand(128, 8, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(dim=1)
    return Dataset("data", Examples(x[:96], y[:96]), Examples(x[96:], y[96:]), 3)


def make(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def tiny(monkeypatch):
    """Sizes that take a moment, whatever the time."""
    names = {demand: name for name, demand in DEMANDS.items()}
    monkeypatch.setattr(module, "fit", lambda demand, *_: (TINY[names[demand]], 1.0))
    monkeypatch.setattr(module, "LEARNING_RATES", (0.1,))


@pytest.fixture
def quick(tiny, monkeypatch):
    """Probes that find nothing, and pages without figures."""

    def measure(folder, probe, arguments, **_):
        folder.mkdir(parents=True)
        found = EMPTY[probe.name]
        write_json(folder / "result.json", {"probe": probe.name, **found.record()})
        return found

    monkeypatch.setattr(module, "measure_in", measure)
    monkeypatch.setattr(Finding, "section", lambda self, folder, title: Section(title, "Found."))


EMPTY: dict[str, Finding] = {
    "lottery-ticket": LotteryTicket(outcomes=(), trials=1, weights=9),
    "memorization": Memorization(
        fits=(), network="net", data="data", chance=0.1, epochs=3, radius=None
    ),
    "intrinsic-dimension": IntrinsicDimension(
        network="net", data="data", parameters=99, metric="train", part="train", examples=9,
        threshold=0.9, kind="srht", seeds=(0,), recipe={},
        baselines=(Trained(None, 0, 0.1, 0.9, 0.9, 1),),
        trained=(Trained(4, 0, 0.1, 0.2, 0.2, 1), Trained(8, 0, 0.1, 0.9, 0.9, 1)),
    ),
    "layer-reset": LayerReset(
        network="net", data="data", bn="keep", batch_norms=0, epochs=(0, 1), seeds=(0,),
        units=(), cells=(), distances=(), chance=0.9, recipe=None,
    ),
}  # fmt: skip


def test_all_probes_on_one_page(data, tiny, tmp_path):
    before = torch.random.get_rng_state()
    found = wf.inspect(make, data, minutes=5, folder=tmp_path, title="three", progress=False)
    assert set(found.findings) == set(DEMANDS) == set(TITLES) and not found.left_out
    text = html.unescape(found.page.read_text())
    for wanted in ("three", "195 weights", *TITLES.values()):
        assert wanted in text
    for name, finding in found.findings.items():
        assert finding.headline in text
        assert TINY[name].text in text
    assert text.count("<svg") == len(DEMANDS)
    positions = [text.index(f"<h2>{title}") for title in TITLES.values()]
    assert all(a < b for a, b in pairwise(positions))
    assert torch.equal(before, torch.random.get_rng_state())
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert {n: Sizes(**s) for n, s in plan["sizes"].items()} == TINY
    for name, finding in found.findings.items():
        read = read_finding(tmp_path / name)
        assert read is not None and read.headline == finding.headline


def test_the_same_call_goes_on_after_ctrl_c(data, quick, tmp_path, monkeypatch):
    measure, begun = module.measure_in, []

    def stopped(folder, *args, **options):
        begun.append(folder.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return measure(folder, *args, **options)

    monkeypatch.setattr(module, "measure_in", stopped)
    with pytest.raises(KeyboardInterrupt):
        wf.inspect(make, data, minutes=5, folder=tmp_path, progress=False)
    text = (tmp_path / "index.html").read_text()
    assert text.count("Found.") == 1 and text.count("not run yet") == 2 * 3
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert list(plan["sizes"]) == begun
    # Sizes of what was begun stay, whatever time there is now.
    monkeypatch.setattr(module, "fit", lambda *_: (None, 1e4))
    found = wf.inspect(make, data, minutes=5, folder=tmp_path, progress=False)
    assert set(found.findings) == set(begun)
    rest = set(DEMANDS) - set(begun)
    assert found.left_out == dict.fromkeys(rest, "not run: needs about 167 minutes by itself")
    assert "not run: needs about 167 minutes by itself" in found.page.read_text()


def test_a_probe_that_takes_too_long_is_stopped(data, quick, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def slow(folder, probe, arguments, *, progress, **_):
        now[0] = 1e6
        progress(Progress(1, 2))

    monkeypatch.setattr(module, "measure_in", slow)
    found = wf.inspect(make, data, minutes=5, folder=tmp_path, progress=False)
    assert not found.findings
    first, *others = DEMANDS
    assert found.left_out[first].startswith("unfinished when the time was up")
    assert {found.left_out[name] for name in others} == {"not run yet"}


def test_what_fails_is_told_and_the_rest_goes_on(data, quick, tmp_path, monkeypatch):
    measure = module.measure_in

    def failing(folder, *args, **options):
        if folder.name == "memorization":
            raise ValueError("a layer <x> has none")
        return measure(folder, *args, **options)

    monkeypatch.setattr(module, "measure_in", failing)
    found = wf.inspect(make, data, minutes=5, folder=tmp_path, progress=False)
    assert found.left_out == {"memorization": "failed: a layer <x> has none"}
    assert set(found.findings) == set(DEMANDS) - {"memorization"}
    assert "failed: a layer &lt;x&gt; has none" in found.page.read_text()


def test_too_little_time_names_what_is_needed(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEARNING_RATES", (0.1,))
    found = wf.inspect(make, data, minutes=1e-9, folder=tmp_path, progress=False)
    assert not found.findings
    assert all("needs about" in reason for reason in found.left_out.values())
    assert "each recipe's own learning rate" in html.unescape(found.page.read_text())


def test_wrong_calls_are_refused(data, quick, tmp_path):
    with pytest.raises(ValueError, match=r"minutes=0: give how long"):
        wf.inspect(make, data, minutes=0, folder=tmp_path)
    wf.inspect(make, data, minutes=5, folder=tmp_path, progress=False)
    other = replace(data, train=data.train.select(torch.arange(50)))
    with pytest.raises(FileExistsError, match=r"inspected\.data"):
        wf.inspect(make, other, minutes=5, folder=tmp_path)
