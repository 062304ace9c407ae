"""Every experiment of probes: its cells can be run, and it says what is not run."""

import json

import pytest

from weightfold.data import available
from weightfold.lab.declare import PRESETS
from weightfold.lab.experiment import experiment, experiments
from weightfold.lab.probe_cell import ProbeCell
from weightfold.lab.probe_declare import ProbeExperiment, ProbeLine
from weightfold.nets import build
from weightfold.probes.registry import probe
from weightfold.spec import parse_spec

NAMES = [name for name, found in experiments().items() if isinstance(found, ProbeExperiment)]
CHANNELS = {"cifar10": 3, "mnist": 1, "digits": 1}


def line(name: str, label: str) -> ProbeLine:
    found = experiment(name)
    assert isinstance(found, ProbeExperiment)
    return next(one for one in found.lines if one.label == label)


@pytest.mark.parametrize("name", NAMES)
def test_cells_of_every_preset_can_be_made(name):
    found = experiment(name)
    models = set()
    for preset in PRESETS:
        cells = found.cells(preset)
        assert cells, preset
        for cell in (cell for line in cells.values() for cell in line):
            if isinstance(cell, ProbeCell):
                chosen, texts = probe(cell.probe)
                assert chosen.networks == bool(cell.model and cell.data)
                given = chosen.read(texts)
                assert (cell.recipe is not None) == (chosen.recipe is not None)
                assert not {"recipe"} & given.keys() or cell.recipe is None
            if cell.data:
                data, options = parse_spec(cell.data)
                assert data in available()
                models.add((cell.model, 3 if "rgb" in options else CHANNELS[data]))
    for model, channels in sorted(models):
        build(model, num_classes=10, in_channels=channels)
    folders = [c.folder for line in found.cells("cpu").values() for c in line]
    assert len({*folders}) == len(folders)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_written_before_anything_is_run(name, tmp_path):
    found = experiment(name)
    asked = {"name": name, "preset": "cpu", "seeds": None, "data": None}
    page = found.write("cpu", tmp_path / "runs", tmp_path / "out", asked=asked)
    text = page.read_text()
    for one in found.lines:
        assert not one.not_run or one.not_run.split("'")[0] in text
    claims = json.loads((tmp_path / "out" / "results.json").read_text())["claims"]
    assert all(claim["holds"] == "not run" for claim in claims)


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
    found = line("li2018-intrinsic", label)
    cell = found.cells["paper"]
    net = build(cell.model, num_classes=10, in_channels=CHANNELS[parse_spec(cell.data)[0]])
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert found.published["dimension"].value == published


@pytest.mark.parametrize(
    ("start", "published", "bound"), [("ImageNet", 5e5, ">"), ("Humanoid", 700, ""),
                                      ("Atari Pong", 6000, "")],
)  # fmt: skip
def test_what_is_not_run_is_listed(start, published, bound):
    (found,) = [one for one in experiment("li2018-intrinsic").lines if one.label.startswith(start)]
    assert found.not_run and not found.cells
    printed = found.published["dimension"]
    assert (printed.value, printed.bound) == (published, bound)
