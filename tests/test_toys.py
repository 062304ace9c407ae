"""What an addition costs: a toy of each kind, one file or folder, that no other file knows of.

The folders of `tests/toys` are put beside the package's own; nothing else is told. (The method
`gain` goes through the laws in `tests/core`, and here from training to a saved and loaded net.)
"""

import csv
import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

import weightfold as wf
from weightfold import papers
from weightfold.cli import main
from weightfold.data import Dataset, Examples, reader
from weightfold.data.registry import readers
from weightfold.probes.registry import probes
from weightfold.tasks import registry as tasks
from weightfold.train import Options, Recipe, fit

TOYS = Path(__file__).parent / "toys"
QUICK = Recipe(epochs=2, batch_size=16, lr=0.05, schedule="constant", crop_padding=0, flip=False)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """The folders of toys, on the paths that are scanned."""
    for name in ("methods", "tasks", "probes", "papers"):
        package = import_module(f"weightfold.{name}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(TOYS / name)])
    caches = (probes, papers.experiments)
    for cache in caches:
        cache.cache_clear()
    import_module("weightfold.tasks.huber")
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def brightness():
    if "toy-brightness" not in readers():

        @reader("toy-brightness")
        def read() -> Dataset:
            """Images and how bright they are, above and below."""
            return two_halves()

        readers.cache_clear()


def two_halves() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (80, 1, 8, 8), generator=generator, dtype=torch.uint8)
    halves = images.float().div(255).flatten(2).unflatten(2, (2, 32)).mean(dim=3)[:, 0]
    parts = (Examples(images[s], 20 * (halves[s] - 0.5)) for s in (slice(60), slice(60, 80)))
    return Dataset("toy-brightness", *parts, mean=(0.5,), std=(0.3,))


def linear() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))


def test_a_method_trains_is_saved_and_loaded(tmp_path):
    from weightfold.methods import catalogue

    assert "gain" in catalogue()
    gain = import_module("weightfold.methods.gain.verb").gain
    net = gain(linear())
    task = tasks.build("regress", two_halves())
    history = fit(net, task, QUICK, seed=0, device="cpu", progress=False, options=Options())
    assert history.last_value < history.rows[0]["test_mse"] * 1.01
    wf.save(net, tmp_path / "net")
    again = wf.load(tmp_path / "net", linear())
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(again.eval()(x), net.eval()(x))
    torch.testing.assert_close(net.deploy()(x), net(x))


def test_a_task_trains_from_the_command_line(brightness, tmp_path, capsys):
    options = ["--epochs", "3", "--crop-padding", "0", "--no-flip", "--device", "cpu"]
    argv = ["train", "--model", "digitnet", "--data", "toy-brightness", "--folder", str(tmp_path)]
    assert main([*argv, "--task", "toy-huber", *options]) in (0, None)
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["measures"][0]["name"] == "far"
    assert f"test far {history['last_far']:.2%}" in capsys.readouterr().out
    assert "test_far" in (tmp_path / "metrics.csv").read_text().splitlines()[0]


def test_a_probe_is_listed_runs_and_writes_its_page(tmp_path, capsys):
    assert "toy-size" in probes()
    argv = ["probe", "toy-size,scale=2", "--model", "mlp,depth=1,width=4,size=8"]
    argv += ["--data", "digits", "--seeds", "2", "--folder", str(tmp_path / "size")]
    assert main(argv) == 0
    assert "A weight is" in capsys.readouterr().out
    written = json.loads((tmp_path / "size" / "result.json").read_text())
    assert written["probe"] == "toy-size" and len(written["values"]) == 2
    assert "<svg" in (tmp_path / "size" / "index.html").read_text()
    assert main(argv) == 0, "a finished one is read"


def test_an_experiment_along_a_number_runs_and_is_reported_again(tmp_path, capsys):
    argv = ["experiment", "run", "nobody2026-width", "--preset", "smoke"]
    assert main([*argv, "--folder", str(tmp_path)]) == 0
    folder = tmp_path / "nobody2026-width" / "smoke"
    page = (folder / "index.html").read_text()
    assert "Wider is smaller" in page and "<svg" in page
    with (folder / "results.csv").open(newline="") as file:
        lines = [row["line"] for row in csv.DictReader(file)]
    assert lines[0] == "width 4" and "width 16" in lines
    before = (folder / "results.json").read_text()
    assert main(["report", str(tmp_path)]) == 0
    assert (
        json.loads((folder / "results.json").read_text())["results"]
        == (json.loads(before)["results"])
    )
