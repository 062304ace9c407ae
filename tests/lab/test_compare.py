import csv
import html
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from weightfold.data import Dataset, load
from weightfold.lab import compare as module
from weightfold.lab import step_times
from weightfold.lab.compare import Comparison, compare, stretched
from weightfold.lab.page import judge_claims
from weightfold.lab.results import Outcome
from weightfold.lab.run import Execution
from weightfold.lab.step_times import step_seconds
from weightfold.nets import build
from weightfold.tasks import as_task
from weightfold.timing import Latency
from weightfold.train import Recipe, evaluate

QUIET = Execution(progress=False)

VARIANTS = ("compact", "cl,rate=2", "acnet")
SECONDS = {"compact": 0.010, "cl,rate=2": 0.020, "acnet": 0.013}
SEEDS = (3, 4)
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)
REST = {
    "best_value": 0.5,
    "rows": (),
    "finished": False,
    "best_epoch": 1,
    "seconds": 1.0,
}
T_975_1 = 12.7062047  # Student's 97.5% quantile with one degree of freedom, from a printed table


@dataclass(frozen=True)
class Done:
    comparison: Comparison
    folder: Path
    data: str

    def again(self, **changes) -> Comparison:
        arguments = {"variants": VARIANTS, "seeds": SEEDS, "recipe": RECIPE, "match": "time"}
        arguments |= {"folder": self.folder, "execution": QUIET} | changes
        return compare("digitnet", self.data, arguments.pop("variants"), **arguments)

    def runs(self, variant: str) -> list[dict]:
        """history.json of the variant's runs by seed, as they lie on disk."""
        name = "".join(c if c.isalnum() or c in "-.+" else "-" for c in variant)
        return [
            json.loads(path.joinpath("history.json").read_text())
            for seed in SEEDS
            for path in self.folder.glob(f"runs/*_{name}_*_seed{seed}_*")
        ]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    """A finished comparison of matched time, by step times that are made up."""
    folder = tmp_path_factory.mktemp("compare")
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 96), ("test", 40)):
        labels = random.integers(0, 4, count)
        images = random.integers(0, 160, (count, 8, 8))
        images += 90 * (np.arange(8) // 2 == labels[:, None])[:, None, :]
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    np.savez(folder / "stripes.npz", **arrays)
    made = Done(None, folder / "out", str(folder / "stripes.npz"))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "step_seconds", lambda *_: SECONDS)
        return replace(made, comparison=made.again())


@pytest.fixture(scope="module")
def dataset(done: Done) -> Dataset:
    return load(done.data)


def estimate(comparison: Comparison, variant: str, key: str):
    found = comparison.results.estimate(variant, key)
    assert found is not None
    return found


def test_matched_time_gives_the_faster_more_epochs(done):
    wanted = {"compact": 4, "cl,rate=2": 2, "acnet": 3}  # 2 * 20 / 10, 2, 2 * 20 / 13 rounded
    for variant, epochs in wanted.items():
        assert estimate(done.comparison, variant, "epochs").value == epochs
        assert [len(run["rows"]) for run in done.runs(variant)] == [epochs, epochs]


def test_means_and_spread_are_those_of_the_runs(done):
    for variant in VARIANTS:
        runs = done.runs(variant)
        last = [100 * run["rows"][-1]["test_accuracy"] for run in runs]
        best = [100 * max(row["test_accuracy"] for row in run["rows"]) for run in runs]
        found = estimate(done.comparison, variant, "last_accuracy")
        assert found.value == pytest.approx(statistics.mean(last))
        assert found.std == pytest.approx(statistics.stdev(last))
        found = estimate(done.comparison, variant, "best_accuracy")
        assert found.value == pytest.approx(statistics.mean(best))


def test_differences_are_paired_by_seed(done):
    first, *others = VARIANTS
    compact = [100 * run["rows"][-1]["test_accuracy"] for run in done.runs(first)]
    for variant in others:
        mine = [100 * run["rows"][-1]["test_accuracy"] for run in done.runs(variant)]
        a, b = mine[0] - compact[0], mine[1] - compact[1]
        half = T_975_1 * abs(a - b) / 2  # std / sqrt(n) of two values
        d = done.comparison.results.difference(variant, first, "last_accuracy")
        assert d is not None
        assert d.mean == pytest.approx((a + b) / 2)
        assert (d.low, d.high) == pytest.approx((d.mean - half, d.mean + half))


def test_parameters_and_step_ratios(done):
    plain = sum(p.numel() for p in build("digitnet", num_classes=4, in_channels=1).parameters())
    counts = [estimate(done.comparison, v, "training_parameters").value for v in VARIANTS]
    compact, expanded, acnet = counts
    assert compact == plain
    assert expanded > acnet > plain
    assert {estimate(done.comparison, v, "deployed_parameters").value for v in VARIANTS} == {plain}
    ratios = [estimate(done.comparison, v, "step_ratio").value for v in VARIANTS]
    assert ratios == pytest.approx([1, 2, 1.3])


def test_deployed_network_is_the_first_seed_of_the_best_mean(done, dataset):
    shipped = done.comparison.deployed
    best = max(
        VARIANTS,
        key=lambda v: statistics.mean(run["rows"][-1]["test_accuracy"] for run in done.runs(v)),
    )
    assert (shipped.variant, shipped.seed) == (best, SEEDS[0])
    net = build("digitnet", num_classes=4, in_channels=1).eval()
    net.load_state_dict(load_file(done.folder / "deployed" / "model.safetensors"))
    in_training = done.runs(best)[0]["rows"][-1]["test_accuracy"]
    assert evaluate(net, dataset)["accuracy"] == pytest.approx(in_training)
    assert shipped.test_value == pytest.approx(in_training)
    assert shipped.onnx_value == pytest.approx(in_training)


def test_onnx_file_is_fed_as_model_json_says(done, dataset):
    import onnxruntime

    folder = done.folder / "deployed"
    about = json.loads((folder / "model.json").read_text())
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    mean, std = (torch.tensor(about[key])[:, None, None] for key in ("mean", "std"))
    images = (dataset.test.inputs / 255 - mean) / std
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    right = np.mean(logits.argmax(axis=1) == dataset.test.targets.numpy())
    assert right == pytest.approx(done.comparison.deployed.test_value)
    assert max(done.comparison.deployed.onnx_difference.values()) < 1e-5


def test_files(done):
    results = json.loads((done.folder / "results.json").read_text())
    assert results["asked"]["seeds"] == list(SEEDS)
    assert results["asked"]["recipe"]["lr"] == 0.05
    assert {"torch", "weightfold", "commit", "cpu"} <= set(results["written"])
    with (done.folder / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["line"], int(r["seed"])) for r in rows] == [(v, s) for v in VARIANTS for s in SEEDS]
    written = [float(r["last_accuracy"]) for r in rows]
    assert written == [100 * run["last_accuracy"] for v in VARIANTS for run in done.runs(v)]
    with (done.folder / "results.csv").open() as file:
        table = {(r["line"], r["measure"]): float(r["value"]) for r in csv.DictReader(file)}
    for variant in VARIANTS:
        found = estimate(done.comparison, variant, "last_accuracy")
        assert table[variant, "last_accuracy"] == found.value
    assert (done.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_page_and_table_say_what_was_found(done):
    page = (done.folder / "index.html").read_text()
    text = str(done.comparison)
    for variant in VARIANTS:
        assert variant in page
        assert variant in text
        mean = f"{estimate(done.comparison, variant, 'last_accuracy').value:.2f} ± "
        assert mean in page
        assert mean in text
    assert str(done.comparison.deployed) in html.unescape(page)
    assert page.index("<h2>In short") < page.index("<h2>Results")
    assert "<svg" in page


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ((0.9, 0.901), "is more accurate than compact"),
        ((0.1, 0.101), "is less accurate than compact"),
        ((0.5, 0.9), "and compact cannot be told apart"),
    ],
)
def test_verdict_follows_the_interval(done, ours, said):
    results = done.comparison.results

    def made(label, values):
        return tuple(
            Outcome(one.run, SimpleNamespace(last_value=value, **REST))
            for one, value in zip(results.outcomes[label], values, strict=True)
        )

    outcomes = {"compact": made("compact", (0.5, 0.501)), "cl,rate=2": made("cl,rate=2", ours)}
    moved = replace(done.comparison, results=replace(results, outcomes=outcomes))
    text = " ".join(str(moved).split())
    assert f"cl,rate=2 {said}" in text
    verdict = next(iter(judge_claims(moved.results).values()))
    assert verdict.judged == ("undecided" if "cannot" in said else "holds")


def test_python_gives_networks_and_data_that_no_spec_names(dataset, tmp_path):
    def make(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return build("digitnet", num_classes=4, in_channels=1)

    arguments = {
        "seeds": 2,
        "recipe": RECIPE,
        "folder": tmp_path,
        "execution": QUIET,
    }
    found = compare(make, dataset, ("compact", "cl,rate=2"), **arguments)
    assert estimate(found, "cl,rate=2", "last_accuracy").n == 2
    assert compare(make, dataset, ("compact", "cl,rate=2"), **arguments).results.missing == []
    fewer = replace(dataset, train=dataset.train.select(torch.arange(50)))
    with pytest.raises(FileExistsError, match="data"):
        compare(make, fewer, ("compact", "cl,rate=2"), **arguments)


def test_repeating_trains_nothing_and_measures_nothing(done, monkeypatch):
    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "step_seconds", refuse)
    before = {path: path.stat().st_mtime_ns for path in done.folder.glob("runs/*/last.pt")}
    again = done.again()
    for variant in VARIANTS:
        found = estimate(again, variant, "last_accuracy")
        assert found == estimate(done.comparison, variant, "last_accuracy")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"recipe": replace(RECIPE, lr=0.1)}, "recipe.lr: 0.05 there, 0.1 now"),
        ({"seeds": (3, 4, 5)}, "seeds"),
        ({"match": "epochs"}, "match"),
    ],
)
def test_folder_of_another_comparison_is_refused(done, changes, named):
    with pytest.raises(FileExistsError, match=named):
        done.again(**changes)


def test_folder_of_other_files_is_refused(done, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="no comparison"):
        done.again(folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "changes",
    [{"seeds": (1,)}, {"seeds": (1, 1)}, {"variants": ("compact",)}, {"variants": ("cl", "cl")}],
)
def test_too_few_or_repeated(done, tmp_path, changes):
    with pytest.raises(ValueError, match="each once"):
        done.again(folder=tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_stretched_recipe_keeps_proportions():
    recipe = Recipe(epochs=12, schedule="step", milestones=(6, 9), warmup_epochs=2)
    longer = stretched(recipe, 18)
    assert (longer.epochs, longer.milestones, longer.warmup_epochs) == (18, (9, 14), 3)
    assert stretched(recipe, 12) == recipe


def test_step_seconds_times_training_steps(dataset, monkeypatch):
    def one_round(steps, **_):
        losses = {name: [step(), step()] for name, step in steps.items()}
        assert all(second != first for first, second in losses.values())  # it trains
        return {name: Latency(20.0, 10.0, 30.0, 1, 1) for name in steps}

    monkeypatch.setattr(step_times, "alternate", one_round)
    nets = {name: build("digitnet", num_classes=4, in_channels=1) for name in "ab"}
    assert step_seconds(nets, as_task(dataset), RECIPE) == {"a": 0.02, "b": 0.02}
