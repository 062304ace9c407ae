import csv
import json
from dataclasses import replace
from itertools import product
from math import isclose
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50, squeezenet1_0

from weightfold.lab import experiment as registry
from weightfold.lab.cell import run
from weightfold.lab.declare import PRESETS
from weightfold.lab.domains_cell import PLAIN, Domain, DomainCell, plan_of, read_plan, shared_net
from weightfold.lab.domains_declare import Counted, DomainsExperiment, Plan, Size
from weightfold.lab.domains_pruning import PruningCell, PruningExperiment, _largest
from weightfold.lab.domains_results import read_results
from weightfold.lab.experiment import experiment, experiments, report, run_experiment
from weightfold.lab.runner import CellsFailed
from weightfold.nets import build
from weightfold.train import Recipe
from weightfold.train.checkpoint import save_weights
from weightfold.train.domains import Joint

NAMES = [f"zhang2021-{n}" for n in ("table1", "table2", "figure2", "figure3", "figure4")]
QUICK = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)
TWO = (Domain("one", "stripes.npz", 4), Domain("two", "stripes.npz,limit=64", 4))


@pytest.fixture
def tiny(stripes, tmp_path, monkeypatch):
    """A cell of two domains that trains in a moment; its data folder is the environment's."""
    monkeypatch.setenv("WEIGHTFOLD_DATA", str(tmp_path))
    return DomainCell("digitnet", "bottom,fraction=0.5", TWO, QUICK, 0, 8, test_limit=20)


@pytest.fixture
def made_up(tiny, monkeypatch):
    """An experiment on the stripes, among those found."""
    size = Size(
        models={"net": tiny.model},
        starts={},
        recipes={"": QUICK},
        domains=TWO,
        seeds=2,
        sizes={"": 8},
        differs="everything <really>",
        joint=Joint(head_epochs=1),
    )
    printed = {"one": 0.5, "two": 0.25}
    found = DomainsExperiment(
        name="made-up",
        paper="Nobody",
        title="stripes",
        lines=(
            Plan("bottom", "net", tiny.plan, printed, "0.01"),
            Plan("top", "net", "top,fraction=0.5", {"one": 0.4, "two": 0.25}),
            Plan("independent", "net", "independent"),
            Plan("alone", "net", "bottom,fraction=0.5", domains=1),
        ),
        presets=dict.fromkeys(PRESETS, size),
        claims=(
            Counted("bottom above top", (("bottom", "top"),)),
            Counted("bottom at least top", (("bottom", "top"),), True),
        ),
        figures=("curves", "share"),
    )
    monkeypatch.setattr(registry, "experiments", lambda: {"made-up": found})
    return found


@pytest.mark.parametrize("name", [*NAMES, "zhang2021-ablations"])
def test_every_preset_declares_plans_that_can_be_made(name):
    found = experiment(name)
    for preset in PRESETS:
        for label, cells in found.cells(preset).items():
            assert [c.seed for c in cells] == list(range(found.presets[preset].seeds)), label
            assert len({d.name for d in cells[0].domains}) == len(cells[0].domains) >= 2
            read_plan(cells[0].plan)
    with pytest.raises(ValueError, match=r"data='mnist': .* leave data out"):
        found.cells("cpu", data="mnist")


def test_what_the_paper_prints_counted():
    """Facts worked out by hand from Tables 1 and 2."""
    results = read_results(experiment("zhang2021-table1"), "smoke", Path("nowhere"))
    counts = [results.published_count(claim) for claim in results.experiment.claims]
    assert [count[:2] for count in counts] == [(20, 20), (17, 20), (18, 20), (9, 20)]
    assert isclose(counts[0][2], 100 * (0.69501 - 0.666685), abs_tol=0.01)
    second = read_results(experiment("zhang2021-table2"), "smoke", Path("nowhere"))
    assert second.published_count(second.experiment.claims[0])[:2] == (9, 9)


def test_equal_cells_of_several_figures_are_run_once():
    tables = [experiment(f"zhang2021-{n}").cells("cpu") for n in ("table1", "figure2", "figure3")]
    one, two, three = tables
    assert one["MobileNetV2, bottom"] == two["MobileNetV2, bottom"]
    assert one["MobileNetV2, bottom"][:2] == three["bottom, 20%"]
    assert one["MobileNetV2, independent"][:2] == three["independent"]


def test_what_the_paper_preset_lacks_is_named_before_anything_is_loaded(tmp_path):
    cell = experiment("zhang2021-table1").cells("paper")["ResNet50, bottom"][0]
    with pytest.raises(FileNotFoundError) as error:
        run(cell, tmp_path, data_root=tmp_path)
    for name in ("aircraft", "birds", "cars", "dogs", "indoor", "weights/resnet50.safetensors"):
        assert str(tmp_path / name) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_cell_starts_from_the_network_trained_before_it(tiny, tmp_path):
    first = replace(tiny, plan="independent", domains=TWO[:1])
    second = replace(tiny, start=first, seed=3)
    history = run(second, tmp_path, progress=False)
    assert set(history.last_accuracies) == {"one", "two"}
    from safetensors.torch import load_file

    plain = load_file(tmp_path / first.folder / PLAIN)
    net = shared_net(second, plain)
    for domain in ("one", "two"):
        state = net.deploy(domain=domain).state_dict()
        for name, tensor in plain.items():
            if not name.startswith(net.sharing.layout.head):
                assert torch.equal(state[name], tensor), name
    assert second.finished(tmp_path) == history
    assert run(second, tmp_path, data_root="gone", progress=False) == history


def test_folders_and_weights_below_the_data_folder(tiny, tmp_path):
    random = np.random.default_rng(0)
    for part, name in product(("train", "test"), ("cat", "dog")):
        folder = tmp_path / "pets" / part / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(random.integers(0, 255, (9, 12, 3), np.uint8)).save(folder / f"{i}.png")
    torch.manual_seed(0)
    save_weights(build("digitnet", num_classes=1000), tmp_path / "weights.safetensors")
    domains = (Domain("pets", "pets", 2), TWO[0])
    cell = replace(tiny, domains=domains, start="weights.safetensors", joint=Joint(epoch="min"))
    history = run(cell, tmp_path / "runs", data_root=tmp_path, progress=False)
    assert set(history.last_accuracies) == {"pets", "one"}


def test_folded_batch_norms_are_unfolded_without_a_change(tiny):
    folded = build("digitnet", num_classes=4)
    with torch.no_grad():
        folded.bn1.bias.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    state = folded.state_dict()
    alike = replace(tiny, plan="bottom,fraction=0.5,bn=shared")
    for cell in (tiny, alike):
        net = shared_net(cell, state, [images[:32], images[32:]])
        plain = net.deploy(domain="two").eval()
        folded.load_state_dict({n: plain.state_dict()[n] if n.startswith("fc2") else t
                                for n, t in state.items()})  # fmt: skip
        assert not torch.equal(plain.bn2.running_mean, state["bn2.running_mean"])
        assert torch.allclose(plain(images), folded.eval()(images), atol=1e-5)
        plain.train()  # its statistics are those of these images, up to n / (n - 1)
        assert torch.allclose(plain(images), folded(images), atol=1e-4)


def test_a_shared_classifier_is_as_wide_as_the_most_classes(tiny):
    cell = replace(tiny, plan="bottom,fraction=0.5,head=shared",
                   domains=(TWO[0], replace(TWO[1], classes=7)))  # fmt: skip
    assert cell.classes == {"one": 7, "two": 7}
    with pytest.raises(ValueError, match=r"'two' is declared with 7 classes, its data .* has 4"):
        run(cell, Path("nowhere"), progress=False)


def test_run_count_and_report(made_up, tmp_path):
    page = run_experiment("made-up", "smoke", tmp_path, runs=tmp_path / "runs", progress=False)
    names = {"results.csv", "claims.csv", "results.json", "index.html"}
    drawn = ("figure", "curves", "share", "front")
    names |= {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    assert {path.name for path in page.parent.iterdir()} == names
    text = page.read_text(encoding="utf-8")
    assert "everything &lt;really&gt;" in text
    assert "not finished" not in text
    results = read_results(made_up, "smoke", tmp_path / "runs")
    count = results.count(made_up.claims[0])
    differences = [results.difference("bottom", "top", d) for d in ("one", "two")]
    assert count.of == 2
    assert count.held == sum(d.mean > 0 for d in differences)
    mean = sum(d.mean for d in differences) / 2
    assert count.difference.mean == pytest.approx(mean)
    with (page.parent / "claims.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["paper_held"] for row in rows] == ["1", "2"]
    assert float(rows[0]["paper_difference"]) == pytest.approx(5)
    data = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    lines = data["lines"]
    for label, cells in made_up.cells("smoke").items():
        count = sum(p.numel() for p in shared_net(cells[0], None).parameters())
        assert lines[label]["total_parameters"] == count
    assert sum(cell["history"] is not None for cell in data["cells"]) == 8
    assert report(tmp_path, runs=tmp_path / "runs") == [page]


def test_a_page_of_nothing_yet_lists_what_is_missing(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTFOLD_DATA", str(tmp_path / "empty"))
    with pytest.raises(CellsFailed, match=r"stripes\.npz: missing"):
        run_experiment("made-up", "smoke", tmp_path, seeds=1, progress=False)
    page = tmp_path / "made-up" / "smoke" / "index.html"
    assert "4 cells are not finished" in page.read_text(encoding="utf-8")


def test_declarations_refuse_what_does_not_fit(made_up):
    with pytest.raises(ValueError, match="labels repeat"):
        replace(made_up, lines=(made_up.lines[0],) * 2)
    with pytest.raises(ValueError, match=r"no lines \['best'\]"):
        replace(made_up, claims=(Counted("wins", (("best", "top"),)),))
    with pytest.raises(ValueError, match="plan='middle'"):
        read_plan("middle")
    with pytest.raises(ValueError, match="no option 'seed'"):
        read_plan("random,seed=3")


def test_pruning_finds_the_layer_that_matters(tiny, tmp_path, monkeypatch):
    cell = PruningCell(replace(tiny, plan="independent"), (("weights", 0.5), ("filters", 1.0)), 20)
    records = run(cell, tmp_path, progress=False)
    layers = [layer.path for layer in plan_of("digitnet", "independent", 8, 0).layers]
    assert [r["layer"] for r in records] == [x for _ in TWO for x in layers for _ in range(2)]
    constant = [r for r in records if r["unit"] == "filters"]
    for record in constant:  # a dead layer: every image gets the same answer
        assert record["accuracy"] - record["drop"] / 100 <= 0.6
    assert run(cell, tmp_path, data_root="gone", progress=False) == records
    found = PruningExperiment(
        "made-up",
        "Nobody",
        "pruned",
        {"cpu": {"net": (cell.net,)}},
        cell.ways,
        {"cpu": 20},
        {"cpu": "all"},
    )
    monkeypatch.setattr(registry, "experiments", lambda: {"made-up": found})
    page = run_experiment("made-up", "cpu", tmp_path, runs=tmp_path, progress=False)
    assert "net: 1/1 seeds" in page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="seeds=2: made-up has 1 to 1"):
        found.cells("cpu", seeds=2)


def test_masks_of_pruning():
    weight = torch.tensor([[[[1.0]], [[-5.0]]], [[[0.5]], [[2.0]]]])
    assert _largest(weight, "weights", 0.5).flatten().tolist() == [False, True, False, True]
    assert _largest(weight, "filters", 0.5).flatten().tolist() == [True, True, False, False]


def test_networks_of_small_studies():
    wide, ours = resnet50().state_dict(), build("resnet50_narrow,divisor=1", num_classes=1000)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in wide.items()
    }
    with pytest.raises(ValueError, match="divisor=3"):
        build("resnet50_narrow,divisor=3", num_classes=10)
    net = build("squeezenet1_0_bn", num_classes=1000)
    plain = squeezenet1_0()
    assert plain.state_dict().keys() < net.state_dict().keys()
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sum(m.num_features for m in norms) == 2976  # filters but the classifier's


def test_the_registry_lists_them():
    assert {*NAMES, "zhang2021-ablations", "zhang2021-pruning"} <= set(experiments())
