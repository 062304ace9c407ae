"""What every experiment of a paper keeps to: it plans, it is judged unrun, it runs and reports."""

import json
import shutil
from pathlib import Path

import pytest

from weightfold.data import available
from weightfold.lab.experiment import PRESETS
from weightfold.lab.page import judge_claims
from weightfold.lab.printed import read_paper
from weightfold.lab.probing import Probing
from weightfold.lab.results import read_results
from weightfold.lab.run import Execution
from weightfold.lab.running import report, report_experiment, run_experiment
from weightfold.lab.training import Training
from weightfold.nets import build
from weightfold.papers import experiment, experiments
from weightfold.probes.registry import probes
from weightfold.spec import parse_spec

QUIET = Execution(progress=False)

NAMES = list(experiments())
CHANNELS = {"cifar10": 3, "mnist": 1, "digits": 1}
LARGE = ("guo2020-table3", "guo2020-table6")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_planned(name, preset):
    found = experiment(name)
    assert list(found.presets) == list(PRESETS) and found.presets[preset].differs
    lines = found.runs(preset)
    assert lines and all(lines.values())
    folders = [run.folder for line in lines.values() for run in line]
    if preset != "smoke":  # where lines of several backbones have one small network
        assert len({*folders}) == len(folders)
    for runs in lines.values():
        assert len({run.folder for run in runs}) == len(runs)
        for run in runs:
            assert run.from_json is not None and json.dumps(run.settings)
            assert run.title and run.key in run.folder
            if isinstance(run, Training):
                assert parse_spec(run.data)[0] in available() or run.data == "imagenet"


@pytest.mark.parametrize("name", NAMES)
def test_probes_take_what_they_are_called_with(name):
    models = set()
    for preset in PRESETS:
        for run in (run for line in experiment(name).runs(preset).values() for run in line):
            if not isinstance(run, Probing):
                continue
            chosen = probes()[run.probe]
            assert chosen.networks == bool(run.model and run.data)
            assert dict(run.options).keys() <= chosen.options.keys()
            assert (run.recipe is not None) == (chosen.recipe is not None)
            if run.data:
                data, options = parse_spec(run.data)
                assert data in available()
                models.add((run.model, 3 if "rgb" in options else CHANNELS[data]))
    for model, channels in sorted(models):
        build(model, num_classes=10, in_channels=channels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", ["smoke", "cpu"])
def test_claims_of_what_was_not_run_are_not_run(name, preset, tmp_path):
    results = read_results(experiment(name), preset, tmp_path)
    assert not any(results.records(label) for label in results.outcomes)
    for verdict in judge_claims(results).values():
        assert verdict.text == "not run" and verdict.p is None and verdict.comparisons
        assert verdict.numbers


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LARGE])
def test_a_page_can_be_written_before_anything_is_run(name, tmp_path):
    page = report_experiment(experiment(name), "smoke", tmp_path)
    text = page.read_text(encoding="utf-8")
    for line in experiment(name).lines:
        assert not line.not_run or line.not_run.split("'")[0] in text
    assert "Missing runs" in text
    written = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert {claim["verdict"] for claim in written["claims"]} <= {"not run"}


@pytest.mark.parametrize(
    "name", ["guo2020-table9", "arpit2017-ledger", "zhang2021-figure4", "zhang2021-pruning"]
)
def test_a_smoke_run_of_each_kind_is_saved_and_reported_again(name, tmp_path):
    found = experiment(name)
    page = run_experiment(found, "smoke", tmp_path, seeds=1, execution=QUIET)
    text = _without_times(page)
    written = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert all(run["finished"] and run["record"] is not None for run in written["runs"])
    assert all(claim["verdict"] for claim in written["claims"])
    assert "Missing runs" not in "".join(text)
    shutil.rmtree(tmp_path / "runs")
    assert report(tmp_path, experiments()) == [page]
    assert _without_times(page) == text


def _without_times(page: Path) -> list[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "Page written" not in line]


PAPERS = Path(read_paper.__code__.co_filename).parents[1] / "papers"
FILES = sorted(path.name for path in PAPERS.glob("*.toml"))


@pytest.mark.parametrize("file", FILES)
def test_every_printed_number_is_used_or_said_to_be_unused(file):
    paper = read_paper(PAPERS / file)
    used = {cell for found in experiments().values() for cell in found.printed}
    assert paper.cells and all(paper.unused.values())
    assert paper.cells - used == set(paper.unused)


def test_every_published_number_is_printed_somewhere():
    printed = {cell for file in FILES for cell in read_paper(PAPERS / file).cells}
    for found in experiments().values():
        assert found.printed <= printed
        for line in found.lines:
            assert all(number.cells for number in line.printed)


@pytest.mark.parametrize(
    ("label", "parameters", "published"),
    [
        ("MNIST: FC", 199_210, 750),
        ("MNIST: LeNet", 44_426, 290),
        ("MNIST, shuffled pixels: FC", 199_210, 750),
        ("MNIST, shuffled pixels: LeNet", 44_426, 1_400),
        ("MNIST, random labels: FC 5 x 400", 959_610, 190_000),
        ("CIFAR-10: FC", 656_810, 9_000),
        ("CIFAR-10: LeNet", 62_006, 2_900),
    ],
)
def test_published_dimensions(label, parameters, published):
    found = experiment("li2018-intrinsic").line(label)
    run = found.runs["paper"]
    net = build(run.model, num_classes=10, in_channels=CHANNELS[parse_spec(run.data)[0]])
    assert sum(p.numel() for p in net.parameters()) == parameters
    (printed,) = found.published.values()
    assert printed.value == published
    assert (found.published.keys() == {"absolute"}) == (
        label.startswith("MNIST") and "random" not in label
    )


@pytest.mark.parametrize(
    ("start", "published", "bound"), [("ImageNet", 5e5, ">"), ("Humanoid", 700, ""),
                                      ("Atari Pong", 6000, "")],
)  # fmt: skip
def test_what_is_not_run_is_listed(start, published, bound):
    (found,) = [one for one in experiment("li2018-intrinsic").lines if one.label.startswith(start)]
    assert found.not_run and not found.runs
    printed = found.published["dimension"]
    assert (printed.value, printed.bound) == (published, bound)
