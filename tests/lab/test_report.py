import csv
import json
import shutil
from dataclasses import replace

import pytest

from weightfold.lab.claims import above
from weightfold.lab.experiment import PRESETS, Claim, Column, Experiment, Line, Preset
from weightfold.lab.measures import BEST_ACCURACY, LAST_ACCURACY, PARAMETERS
from weightfold.lab.printed import Printed
from weightfold.lab.run import Execution
from weightfold.lab.runner import CellsFailed
from weightfold.lab.running import report, report_experiment, run_experiment
from weightfold.lab.training import Training
from weightfold.train import Recipe
from weightfold.train.checkpoint import finished

QUIET = Execution(progress=False)

QUICK = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)


@pytest.fixture
def made_up(stripes):
    """An experiment on the stripes."""

    def line(label, variant, recipe=QUICK, **more):
        run = Training("digitnet", variant, stripes, recipe)
        return Line(label, dict.fromkeys(PRESETS, run), **more)

    preset = Preset(2, "everything", data=stripes, lines=("plain", "CL"))
    return Experiment(
        name="made-up",
        paper="Nobody",
        title="stripes <told> apart",
        columns=(
            Column("stripes", "Stripes", 4, (1, 8, 8)),
            Column("dots", "Dots", 4, (1, 8, 8), "no data here; draw some."),
        ),
        measures=(BEST_ACCURACY, LAST_ACCURACY, PARAMETERS),
        lines=(
            line("plain", "compact", published={"best_accuracy": Printed(50.0, 0.5)}),
            line("CL", "cl,rate=2"),
            line("wild", "compact", replace(QUICK, lr=1e30)),
        ),
        presets={
            "smoke": preset,
            "cpu": replace(preset, lines=("plain", "wild")),
            "paper": replace(preset, lines=None),
        },
        claims=(Claim("CL helps", above("CL", "plain", "best_accuracy")),),
    )


def read(page):
    with (page.parent / "results.csv").open(newline="") as file:
        records = {(row["line"], row["measure"]): row for row in csv.DictReader(file)}
    data = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    return page.read_text(encoding="utf-8"), records, data


FILES = {"index.html", "results.csv", "claims.csv", "runs.csv", "results.json"}
FIGURES = {f"{name}.{form}" for name in ("figure", "curves") for form in ("png", "svg")}


def test_run_and_report(made_up, tmp_path):
    page = run_experiment(made_up, "smoke", tmp_path, execution=QUIET)
    assert page == tmp_path / "made-up" / "smoke" / "index.html"
    assert {path.name for path in page.parent.iterdir()} == FILES | FIGURES
    text, records, data = read(page)
    folders = [run.folder for run in made_up.runs("smoke")["plain"]]
    accuracies = [100 * finished(tmp_path / "runs" / f).best_value for f in folders]
    row = records["plain", "best_accuracy"]
    assert float(row["value"]) == pytest.approx(sum(accuracies) / 2)
    assert float(row["difference"]) == pytest.approx(sum(accuracies) / 2 - 50)
    assert (row["n"], row["seeds"], row["published_spread"]) == ("2", "0 1", "0.5")
    assert float(records["plain", "parameters"]["value"]) == (1634 - 6 * 17) / 1000
    assert {run["folder"] for run in data["runs"]} > set(folders)
    assert data["runs"][0]["sessions"][0]["torch"]
    for part in ("stripes &lt;told&gt; apart", "CL helps", "Dots: no data here", "not comparable"):
        assert part in text
    assert "Missing runs" not in text
    assert text.index("<h2>In short") < text.index("<h2>Results")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")}
    assert report(tmp_path, {"made-up": made_up}) == [page]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")} == before
    assert read(page)[1] == records


def without_times(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "Page written" not in line]


def test_a_page_is_written_again_without_its_runs(made_up, tmp_path):
    page = run_experiment(made_up, "smoke", tmp_path, execution=QUIET)
    before, text = read(page)[1], without_times(page)
    shutil.rmtree(tmp_path / "runs")
    assert report(tmp_path, {"made-up": made_up}) == [page]
    assert read(page)[1] == before and without_times(page) == text
    assert report(tmp_path, {"made-up": made_up}) == [page]  # of what was written from results.json
    assert without_times(page) == text
    other = replace(made_up, lines=tuple(_slower(line) for line in made_up.lines))
    report(tmp_path, {"made-up": other})  # another recipe: those numbers are not its
    assert "4 runs are not finished" in page.read_text(encoding="utf-8")


def _slower(line):
    runs = {p: replace(r, recipe=replace(r.recipe, lr=0.01)) for p, r in line.runs.items()}
    return replace(line, runs=runs)


def test_pages_of_unfinished_runs_name_what_is_missing(made_up, tmp_path):
    with pytest.raises(CellsFailed, match="2 of 4 cells failed"):
        run_experiment(made_up, "cpu", tmp_path, execution=QUIET)
    text, records, data = read(tmp_path / "made-up" / "cpu" / "index.html")
    wild = made_up.runs("cpu")["wild"]
    assert "2 runs are not finished" in text
    assert all(run.folder in text for run in wild)
    assert records["plain", "best_accuracy"]["n"] == "2"
    assert data["claims"][0]["verdict"] == "not run"
    nothing = report_experiment(made_up, "smoke", tmp_path, runs=tmp_path / "elsewhere")
    text, records, _ = read(nothing)
    assert "4 runs are not finished" in text
    assert records["plain", "best_accuracy"]["n"] == ""


def test_results_of_an_unknown_experiment(made_up, tmp_path):
    report_experiment(made_up, "smoke", tmp_path)
    with pytest.raises(KeyError, match="'made-up'; the experiments are other"):
        report(tmp_path, {"other": made_up})


def test_report_of_a_folder_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no <experiment>/<preset>/results\.json"):
        report(tmp_path, {})
