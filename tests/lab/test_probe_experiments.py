import csv
import json
import re
from dataclasses import replace

import pytest

from weightfold.lab import experiment as registry
from weightfold.lab.claims import Claim, Verdict
from weightfold.lab.declare import PRESETS
from weightfold.lab.experiment import print_experiments, report, run_experiment
from weightfold.lab.probe_cell import ProbeCell
from weightfold.lab.probe_declare import (
    Estimate,
    Printed,
    ProbeExperiment,
    ProbeLine,
    ProbeMeasure,
    ProbePreset,
)
from weightfold.lab.probe_results import read_results
from weightfold.lab.runner import CellsFailed
from weightfold.report.figures import drawing


def light(records):
    values = records[0].values
    return Estimate(values[0], min(values), max(values), len(values))


def accuracy(records):
    return Estimate(100 * records[0].last_accuracy, n=len(records))


def brighter(results):
    a, b = (results.estimate(label, "light") for label in ("bright", "dark"))
    if not a or not b:
        return Verdict("not run", "")
    return Verdict("holds" if a.value > b.value else "does not hold", f"{a.value} and {b.value}")


def draw(results, path):
    with drawing(path, figsize=(3, 2)) as (_, axis):
        axis.set_title(results.preset)


@pytest.fixture
def made_up(fake_probe, stripes, tiny_cell, monkeypatch) -> ProbeExperiment:
    def everywhere(cell):
        return dict.fromkeys(PRESETS, cell)

    cell = ProbeCell("brightness", 1, "digitnet", stripes)
    found = ProbeExperiment(
        name="made-up",
        paper="Nobody",
        title="light",
        measures=(
            ProbeMeasure("light", "light <lm>", {"brightness": light}, digits=1, relative=True),
            ProbeMeasure("accuracy", "accuracy (%)", {"": accuracy}, digits=1),
        ),
        lines=(
            ProbeLine("bright", everywhere(cell), {"light": Printed(100.0, "Table 1")}, "a lamp"),
            ProbeLine("dark", {"cpu": replace(cell, probe="brightness,lr=0.01")}, seeds=1),
            ProbeLine("plain", everywhere(tiny_cell()), {"accuracy": Printed(99.0)}),
            ProbeLine("sun", published={"light": Printed(9e9, bound=">")}, not_run="no ladder"),
        ),
        presets=dict.fromkeys(PRESETS, ProbePreset(2, "everything <really>")),
        claims=(Claim("bright above dark", brighter),),
        draw=draw,
    )
    monkeypatch.setattr(registry, "experiments", lambda: {"made-up": found})
    return found


def test_cells_of_presets(made_up):
    smoke, cpu = made_up.cells("smoke"), made_up.cells("cpu")
    assert list(smoke) == ["bright", "plain"] and list(cpu) == ["bright", "dark", "plain"]
    assert [c.seeds for c in smoke["bright"]] == [2]
    assert [c.seed for c in smoke["plain"]] == [0, 1]
    assert [c.seeds for c in cpu["dark"]] == [1]
    assert [c.seeds for c in made_up.cells("cpu", seeds=5)["bright"]] == [5]
    with pytest.raises(ValueError, match="preset='fast'"):
        made_up.cells("fast")
    with pytest.raises(ValueError, match="data='mnist'"):
        made_up.cells("cpu", data="mnist")
    with pytest.raises(ValueError, match="seeds=0"):
        made_up.cells("cpu", seeds=0)


def test_an_experiment_runs_and_reports(made_up, tmp_path, capsys):
    page = run_experiment("made-up", "cpu", tmp_path, progress=False)
    text = page.read_text()
    results = read_results(made_up, "cpu", tmp_path / "runs")
    ours = results.estimate("bright", "light")
    shown = f"{ours.value:,.1f} [{ours.low:,.1f}, {ours.high:,.1f}]"
    for wanted in (
        shown, "100.0 (Table 1)", f"{ours.value / 100 - 1:+.0%}", "a lamp", "bright above dark",
        "holds", "no ladder", "&gt; 9,000,000,000.0", "everything &lt;really&gt;", "Made up.",
        "power 1.0", "Brightness",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert text.count("Made up.") == 1  # of two findings of one probe
    assert text.count("<svg") == 3
    folder = page.parent
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(r["line"], r["measure"]) for r in rows] == [
        ("bright", "light"), ("dark", "light"), ("plain", "accuracy"), ("sun", "light")
    ]  # fmt: skip
    assert float(rows[0]["value"]) == ours.value and rows[0]["n"] == "2"
    assert rows[3]["value"] == "" and rows[3]["published_bound"] == ">"
    record = json.loads((folder / "results.json").read_text())
    assert record["claims"][0]["holds"] == "holds"
    assert [c["finished"] for c in record["cells"]] == [True] * 4
    assert len((folder / "lines" / "dark.csv").read_text().splitlines()) == 1 + 1
    before = page.read_bytes()
    report(tmp_path)
    assert re.sub(rb"Page written.*", b"", page.read_bytes()) == re.sub(
        rb"Page written.*", b"", before
    )
    print_experiments()
    assert "sun: not run, no ladder" in capsys.readouterr().out.replace("\n", " ")


def test_what_is_not_finished_is_told(made_up, tmp_path, monkeypatch):
    bright = made_up.lines[0]
    bad = replace(bright, cells={p: replace(c, model="nonet") for p, c in bright.cells.items()})
    broken = replace(made_up, lines=(bad, *made_up.lines[1:]))
    monkeypatch.setattr(registry, "experiments", lambda: {"made-up": broken})
    with pytest.raises(CellsFailed, match="no network 'nonet'"):
        run_experiment("made-up", "smoke", tmp_path, progress=False)
    text = (tmp_path / "made-up" / "smoke" / "index.html").read_text()
    assert "1 cells are not finished" in text and "not finished</td>" in text
    assert "not run" in text  # the claim


LINE = ProbeLine("a", not_run="because")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lines": (LINE, LINE)}, "labels repeat"),
        ({"presets": {}}, "presets are not"),
        ({"lines": (replace(LINE, published={"speed": Printed(1.0)}),)}, "'speed' is neither"),
        ({"lines": (replace(LINE, not_run=""),)}, "give cells"),
    ],
)
def test_a_declaration_that_does_not_hold_together_is_refused(made_up, change, message):
    with pytest.raises(ValueError, match=message):
        replace(made_up, **change)
