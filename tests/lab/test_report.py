import csv
import json
from dataclasses import replace

import pytest

from weightfold.lab import experiment as registry
from weightfold.lab.claims import Claim, above
from weightfold.lab.declare import Column, Experiment, Line, Preset
from weightfold.lab.experiment import report, report_experiment, run_experiment
from weightfold.lab.measures import BEST_ACCURACY, LAST_ACCURACY, PARAMETERS
from weightfold.lab.runner import CellsFailed
from weightfold.train import Recipe
from weightfold.train.checkpoint import finished

QUICK = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)


@pytest.fixture
def made_up(stripes, monkeypatch):
    """An experiment on the stripes, among those found."""
    sizes = {"": QUICK, "wild": replace(QUICK, lr=1e30)}
    preset = Preset(sizes, 2, "everything", data=stripes, lines=("plain", "CL"))
    found = Experiment(
        name="made-up",
        paper="Nobody",
        title="stripes <told> apart",
        columns=(
            Column("stripes", "Stripes", 4, (1, 8, 8)),
            Column("dots", "Dots", 4, (1, 8, 8), "no data here; draw some."),
        ),
        measures=(BEST_ACCURACY, LAST_ACCURACY, PARAMETERS),
        lines=(
            Line("plain", "digitnet", "compact", {"stripes": {"best_accuracy": (50.0, 0.5)}}),
            Line("CL", "digitnet", "cl,rate=2"),
            Line("wild", "digitnet", "compact", recipe="wild"),
        ),
        presets={
            "smoke": preset,
            "cpu": replace(preset, lines=("plain", "wild")),
            "paper": replace(preset, lines=None),
        },
        claims=(Claim("CL helps", above("CL", "plain", "best_accuracy")),),
    )
    monkeypatch.setattr(registry, "experiments", lambda: {"made-up": found})
    return found


def read(page):
    with (page.parent / "results.csv").open(newline="") as file:
        records = {(row["line"], row["measure"]): row for row in csv.DictReader(file)}
    data = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    return page.read_text(encoding="utf-8"), records, data


def test_run_and_report(made_up, tmp_path):
    page = run_experiment("made-up", "smoke", tmp_path, progress=False)
    assert page == tmp_path / "made-up" / "smoke" / "index.html"
    names = {"index.html", "results.csv", "results.json", "figure.png", "curves.png"}
    names |= {"figure.svg", "curves.svg"}
    assert {path.name for path in page.parent.iterdir()} == names
    text, records, data = read(page)
    folders = [cell.folder for cell in made_up.cells("smoke")["plain"]]
    accuracies = [100 * finished(tmp_path / "runs" / f).best_accuracy for f in folders]
    row = records["plain", "best_accuracy"]
    assert float(row["mean"]) == pytest.approx(sum(accuracies) / 2)
    assert float(row["difference"]) == pytest.approx(sum(accuracies) / 2 - 50)
    assert (row["n"], row["seeds"], row["published_std"]) == ("2", "0 1", "0.5")
    assert float(records["plain", "parameters"]["mean"]) == (1634 - 6 * 17) / 1000
    assert {cell["folder"] for cell in data["cells"]} > set(folders)
    assert data["cells"][0]["sessions"][0]["torch"]
    for part in ("stripes &lt;told&gt; apart", "CL helps", "Dots: no data here", "not comparable"):
        assert part in text
    assert "Missing cells" not in text
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")}
    assert report(tmp_path) == [page]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")} == before
    assert read(page)[1] == records


def test_pages_of_unfinished_runs_name_what_is_missing(made_up, tmp_path):
    with pytest.raises(CellsFailed, match="2 of 4 cells failed"):
        run_experiment("made-up", "cpu", tmp_path, progress=False)
    text, records, data = read(tmp_path / "made-up" / "cpu" / "index.html")
    wild = made_up.cells("cpu")["wild"]
    assert "2 cells are not finished" in text
    assert all(cell.folder in text for cell in wild)
    assert records["plain", "best_accuracy"]["n"] == "2"
    assert data["claims"][0]["holds"] == "not run"
    nothing = report_experiment("made-up", "smoke", tmp_path, runs=tmp_path / "elsewhere")
    text, records, _ = read(nothing)
    assert "4 cells are not finished" in text
    assert records["plain", "best_accuracy"]["n"] == "0"


def test_report_of_a_folder_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no <experiment>/<preset>/results\.json"):
        report(tmp_path)
