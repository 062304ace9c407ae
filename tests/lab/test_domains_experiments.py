import csv
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50, squeezenet1_0

from weightfold.lab.claims import across
from weightfold.lab.domains import PLAIN, Domain, DomainsTraining, plan_of, read_plan, shared_net
from weightfold.lab.experiment import PRESETS, Axis, Claim, Experiment, Line, Preset
from weightfold.lab.measures import domain_measures
from weightfold.lab.printed import Printed
from weightfold.lab.pruning import Pruning, mask_largest
from weightfold.lab.results import read_results
from weightfold.lab.run import Execution, run
from weightfold.lab.runner import CellsFailed
from weightfold.lab.running import report, run_experiment
from weightfold.nets import build
from weightfold.train import Recipe
from weightfold.train.checkpoint import save_weights
from weightfold.train.domains import Joint

QUIET = Execution(progress=False)

QUICK = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)
TWO = (Domain("one", "stripes.npz", 4), Domain("two", "stripes.npz,limit=64", 4))


@pytest.fixture
def tiny(stripes, tmp_path, monkeypatch):
    """A run of two domains that trains in a moment; its data folder is the environment's."""
    monkeypatch.setenv("WEIGHTFOLD_DATA", str(tmp_path))
    return DomainsTraining("digitnet", "bottom,fraction=0.5", TWO, QUICK, 0, 8, test_limit=20)


@pytest.fixture
def made_up(tiny):
    """An experiment on the stripes, with a numeric axis."""

    def line(label, plan, one=None, two=None, at=None, series=("",), domains=TWO):
        net = replace(tiny, plan=plan, domains=domains, joint=Joint(head_epochs=1), test_limit=None)
        printed = {"accuracy/one": one, "accuracy/two": two}
        published = {key: Printed(value) for key, value in printed.items() if value is not None}
        return Line(label, dict.fromkeys(PRESETS, net), published, at=at, series=series)

    return Experiment(
        name="made-up",
        paper="Nobody",
        title="stripes",
        measures=domain_measures(["one", "two"]),
        lines=(
            line("bottom", tiny.plan, 50.0, 25.0, 50, ("bottom",)),
            line("top", "top,fraction=0.5", 40.0, 25.0, 50, ("top",)),
            line("independent", "independent", at=100, series=("bottom", "top")),
            line("alone", "bottom,fraction=0.5", domains=TWO[:1]),
        ),
        presets=dict.fromkeys(PRESETS, Preset(2, "everything <really>")),
        claims=(
            Claim("bottom above top", across((("bottom", "top"),), "accuracy")),
            Claim("bottom at least top", across((("bottom", "top"),), "accuracy", or_equal=True)),
        ),
        axis=Axis("own weights (%)", measures=("accuracy", "accuracy/one")),
    )


def test_a_run_starts_from_the_network_trained_before_it(tiny, tmp_path):
    first = replace(tiny, plan="independent", domains=TWO[:1])
    second = replace(tiny, start=first, seed=3)
    history = run(second, tmp_path, progress=False)
    assert set(history.last_values) == {"one", "two"}
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
    assert set(history.last_values) == {"pets", "one"}


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
    page = run_experiment(made_up, "smoke", tmp_path, runs=tmp_path / "runs", execution=QUIET)
    names = {"results.csv", "claims.csv", "runs.csv", "results.json", "index.html"}
    assert {path.name for path in page.parent.iterdir()} == names | {"figure.png", "figure.svg"}
    text = page.read_text(encoding="utf-8")
    assert "everything &lt;really&gt;" in text
    assert "not finished" not in text
    results = read_results(made_up, "smoke", tmp_path / "runs")
    counts = made_up.claims[0].check(results).comparisons[0].counts
    differences = [results.difference("bottom", "top", f"accuracy/{d}") for d in ("one", "two")]
    assert counts["cells"] == 2
    assert counts["held"] == sum(d.mean > 0 for d in differences)
    together = results.difference("bottom", "top", "accuracy/one", "accuracy/two")
    assert together.mean == pytest.approx(sum(d.mean for d in differences) / 2)
    assert together.mean == pytest.approx(results.difference("bottom", "top", "accuracy").mean)
    with (page.parent / "claims.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["paper_held"] for row in rows] == ["1", "2"]
    assert float(rows[0]["paper_difference"]) == pytest.approx(5)
    data = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert sum(run["record"] is not None for run in data["runs"]) == 8
    assert report(tmp_path, {"made-up": made_up}, runs=tmp_path / "runs") == [page]
    before = [line for line in text.splitlines() if "Page written" not in line]
    report(tmp_path, {"made-up": made_up}, runs=tmp_path / "gone")
    after = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in after if "Page written" not in line] == before


def test_a_page_of_nothing_yet_lists_what_is_missing(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTFOLD_DATA", str(tmp_path / "empty"))
    with pytest.raises(CellsFailed, match=r"stripes\.npz: missing"):
        run_experiment(made_up, "smoke", tmp_path, seeds=1, execution=QUIET)
    page = tmp_path / "made-up" / "smoke" / "index.html"
    assert "4 runs are not finished" in page.read_text(encoding="utf-8")


def test_plans_refuse_what_does_not_fit(made_up):
    with pytest.raises(ValueError, match="plan='middle'"):
        read_plan("middle")
    with pytest.raises(ValueError, match="no option 'seed'"):
        read_plan("random,seed=3")
    with pytest.raises(ValueError, match=r"data='mnist': .* leave data out"):
        made_up.runs("cpu", data="mnist")


def test_pruning_finds_the_layer_that_matters(tiny, tmp_path):
    ways = (("weights", 0.5), ("filters", 1.0))
    pruning = Pruning(replace(tiny, plan="independent"), ways, 20)
    records = run(pruning, tmp_path, progress=False)
    layers = [layer.path for layer in plan_of("digitnet", "independent", 8, 0).layers]
    assert [r["layer"] for r in records] == [x for _ in TWO for x in layers for _ in range(2)]
    constant = [r for r in records if r["unit"] == "filters"]
    for record in constant:  # a dead layer: every image gets the same answer
        assert record["accuracy"] - record["drop"] / 100 <= 0.6
    assert run(pruning, tmp_path, data_root="gone", progress=False) == records
    assert [one.seed for one in pruning.over(range(3))] == [0, 1, 2]


def test_masks_of_pruning():
    weight = torch.tensor([[[[1.0]], [[-5.0]]], [[[0.5]], [[2.0]]]])
    assert mask_largest(weight, "weights", 0.5).flatten().tolist() == [False, True, False, True]
    assert mask_largest(weight, "filters", 0.5).flatten().tolist() == [True, True, False, False]


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
