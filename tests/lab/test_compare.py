import csv
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from weightfold.data import Dataset, load
from weightfold.lab import compare as module
from weightfold.lab.compare import compare, step_seconds, stretched
from weightfold.lab.comparison import Comparison
from weightfold.nets import build
from weightfold.timing import Latency
from weightfold.train import Recipe, accuracy

VARIANTS = ("compact", "cl,rate=2", "acnet")
SECONDS = {"compact": 0.010, "cl,rate=2": 0.020, "acnet": 0.013}
SEEDS = (3, 4)
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)
T_975_1 = 12.7062047  # Student's 97.5% quantile with one degree of freedom, from a printed table


@dataclass(frozen=True)
class Done:
    comparison: Comparison
    folder: Path
    data: str

    def again(self, **changes) -> Comparison:
        arguments = {"variants": VARIANTS, "seeds": SEEDS, "recipe": RECIPE, "match": "time"}
        arguments |= {"folder": self.folder, "progress": False} | changes
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


def test_matched_time_gives_the_faster_more_epochs(done):
    wanted = {"compact": 4, "cl,rate=2": 2, "acnet": 3}  # 2 * 20 / 10, 2, 2 * 20 / 13 rounded
    assert {r.variant: r.epochs for r in done.comparison.results} == wanted
    for variant, epochs in wanted.items():
        assert [len(run["rows"]) for run in done.runs(variant)] == [epochs, epochs]


def test_means_and_spread_are_those_of_the_runs(done):
    for result in done.comparison.results:
        runs = done.runs(result.variant)
        last = [run["rows"][-1]["test_accuracy"] for run in runs]
        best = [max(row["test_accuracy"] for row in run["rows"]) for run in runs]
        assert result.last.mean == pytest.approx(statistics.mean(last))
        assert result.last.std == pytest.approx(statistics.stdev(last))
        assert result.best.mean == pytest.approx(statistics.mean(best))


def test_differences_are_paired_by_seed(done):
    first, *others = done.comparison.results
    assert first.difference is None
    compact = [run["rows"][-1]["test_accuracy"] for run in done.runs("compact")]
    for result in others:
        mine = [run["rows"][-1]["test_accuracy"] for run in done.runs(result.variant)]
        a, b = mine[0] - compact[0], mine[1] - compact[1]
        half = T_975_1 * abs(a - b) / 2  # std / sqrt(n) of two values
        d = result.difference
        assert d is not None
        assert d.mean == pytest.approx((a + b) / 2)
        assert (d.low, d.high) == pytest.approx((d.mean - half, d.mean + half))


def test_parameters_and_step_ratios(done):
    plain = sum(p.numel() for p in build("digitnet", num_classes=4, in_channels=1).parameters())
    compact, expanded, acnet = done.comparison.results
    assert compact.training_parameters == plain
    assert expanded.training_parameters > acnet.training_parameters > plain
    assert {r.deployed_parameters for r in done.comparison.results} == {plain}
    assert [r.step_ratio for r in done.comparison.results] == pytest.approx([1, 2, 1.3])


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
    assert accuracy(net, dataset.test, dataset) == pytest.approx(in_training)
    assert shipped.test_accuracy == pytest.approx(in_training)
    assert shipped.onnx_accuracy == pytest.approx(in_training)


def test_onnx_file_is_fed_as_model_json_says(done, dataset):
    import onnxruntime

    folder = done.folder / "deployed"
    about = json.loads((folder / "model.json").read_text())
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    mean, std = (torch.tensor(about[key])[:, None, None] for key in ("mean", "std"))
    images = (dataset.test.images / 255 - mean) / std
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    right = np.mean(logits.argmax(axis=1) == dataset.test.labels.numpy())
    assert right == pytest.approx(done.comparison.deployed.test_accuracy)
    assert max(done.comparison.deployed.onnx_difference.values()) < 1e-5


def test_files(done):
    results = json.loads((done.folder / "results.json").read_text())
    assert results["configuration"]["seeds"] == list(SEEDS)
    assert results["configuration"]["recipe"]["lr"] == 0.05
    assert {"torch", "weightfold", "commit", "cpu"} <= set(results["session"])
    with (done.folder / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["variant"], int(r["seed"])) for r in rows] == [
        (v, s) for v in VARIANTS for s in SEEDS
    ]
    written = [float(r["last_accuracy"]) for r in rows]
    assert written == [run["last_accuracy"] for v in VARIANTS for run in done.runs(v)]
    with (done.folder / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(r["last_mean"]) for r in table] == [r.last.mean for r in done.comparison.results]
    assert (done.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_page_and_table_say_what_was_found(done):
    page = (done.folder / "index.html").read_text()
    text = str(done.comparison)
    for result in done.comparison.results:
        assert result.variant in page
        assert result.variant in text
        assert f"{100 * result.last.mean:.2f} ± " in page
        assert f"{100 * result.last.mean:.2f} ± " in text
    assert "<svg" in page


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.02, "is more accurate than"),
        (-0.02, -0.001, "is less accurate than"),
        (-0.01, 0.02, "cannot be told apart"),
    ],
)
def test_verdict_follows_the_interval(done, low, high, said):
    first, second, _ = done.comparison.results
    moved = replace(second, difference=replace(second.difference, low=low, high=high))
    text = " ".join(str(replace(done.comparison, results=(first, moved))).split())
    assert f"cl,rate=2 {said}" in text or f"cl,rate=2 and compact {said}" in text


def test_repeating_trains_nothing_and_measures_nothing(done, monkeypatch):
    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "step_seconds", refuse)
    before = {path: path.stat().st_mtime_ns for path in done.folder.glob("runs/*/last.pt")}
    assert done.again().results == done.comparison.results
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
    with pytest.raises(ValueError, match="at least two, each once"):
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

    monkeypatch.setattr(module, "alternate", one_round)
    nets = {name: build("digitnet", num_classes=4, in_channels=1) for name in "ab"}
    assert step_seconds(nets, dataset, RECIPE) == {"a": 0.02, "b": 0.02}
