"""The sharing paper's tables and figures: what is run, and what the paper prints, counted."""

from math import isclose
from pathlib import Path
from statistics import fmean

import pytest

from weightfold.lab.claims import on_side, published_differences
from weightfold.lab.domains import read_plan
from weightfold.lab.experiment import PRESETS
from weightfold.lab.results import read_results
from weightfold.lab.run import run
from weightfold.methods.share.presets import PAPER_PARAMETERS
from weightfold.papers import experiment, experiments

NAMES = [f"zhang2021-{n}" for n in ("table1", "table2", "figure2", "figure3", "figure4")]


def test_they_are_found():
    assert {*NAMES, "zhang2021-ablations", "zhang2021-pruning"} <= set(experiments())


@pytest.mark.parametrize("name", [*NAMES, "zhang2021-ablations"])
def test_every_preset_declares_plans_that_can_be_made(name):
    for preset in PRESETS:
        for runs in experiment(name).runs(preset).values():
            assert len({d.name for d in runs[0].domains}) == len(runs[0].domains) >= 2
            read_plan(runs[0].plan)


def test_what_the_paper_prints_counted():
    """Facts worked out by hand from Tables 1 and 2."""
    backbones = ("MobileNetV2", "ResNet50", "MNasNet", "SqueezeNet")

    def count(table, pairs, or_equal=False):
        results = read_results(experiment(f"zhang2021-{table}"), "smoke", Path("nowhere"))
        found = [d for pair in pairs for d in published_differences(results, *pair, "accuracy")]
        return sum(on_side(d, or_equal) for d in found), len(found), fmean(found)

    def pairs(a, b):
        return [(f"{x}, {a}", f"{x}, {b}") for x in backbones]

    held, cells, mean = count("table1", pairs("bottom", "top"))
    assert (held, cells) == (20, 20)
    assert isclose(mean, 100 * (0.69501 - 0.666685), abs_tol=0.01)
    assert count("table1", pairs("bottom", "random"))[:2] == (17, 20)
    assert count("table1", pairs("random", "top"))[:2] == (18, 20)
    assert count("table1", pairs("bottom", "independent"), True)[:2] == (9, 20)
    second = [(f"{n} domains, bottom", f"{n} domains, top") for n in (2, 3, 4)]
    assert count("table2", second)[:2] == (9, 9)


def test_parameters_are_those_that_plans_are_checked_against():
    nets = {"MobileNetV2": "mobilenet_v2", "ResNet50": "resnet50", "MNasNet": "mnasnet1_0",
            "SqueezeNet": "squeezenet1_0"}  # fmt: skip
    for line in experiment("zhang2021-table1").lines:
        backbone, strategy = line.label.split(", ")
        printed = PAPER_PARAMETERS[nets[backbone]][strategy]
        assert line.published["parameters"].value == float(printed)


def test_equal_runs_of_several_figures_are_made_once():
    tables = [experiment(f"zhang2021-{n}").runs("cpu") for n in ("table1", "figure2", "figure3")]
    one, two, three = tables
    assert one["MobileNetV2, bottom"] == two["MobileNetV2, bottom"]
    assert one["MobileNetV2, bottom"][:2] == three["bottom, 20%"]
    assert one["MobileNetV2, independent"][:2] == three["independent"]
    pruned = experiment("zhang2021-pruning").runs("cpu")["MobileNetV2"]
    assert tuple(one_run.before for one_run in pruned) == one["MobileNetV2, independent"]


def test_what_the_paper_preset_lacks_is_named_before_anything_is_loaded(tmp_path):
    one = experiment("zhang2021-table1").runs("paper")["ResNet50, bottom"][0]
    with pytest.raises(FileNotFoundError) as error:
        run(one, tmp_path, data_root=tmp_path)
    for name in ("aircraft", "birds", "cars", "dogs", "indoor", "weights/resnet50.safetensors"):
        assert str(tmp_path / name) in str(error.value)
    assert not list(tmp_path.iterdir())
