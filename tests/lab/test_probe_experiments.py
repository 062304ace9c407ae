import csv
import json
import re
import shutil
from dataclasses import replace

import pytest

from weightfold.lab.experiment import (
    PRESETS,
    SHARE,
    Claim,
    Estimate,
    Experiment,
    Line,
    Preset,
    Quantity,
)
from weightfold.lab.measures import by_probe
from weightfold.lab.printed import Printed
from weightfold.lab.probing import calling
from weightfold.lab.results import read_results
from weightfold.lab.run import Execution
from weightfold.lab.runner import CellsFailed
from weightfold.lab.running import print_experiments, report, run_experiment
from weightfold.lab.tables import show
from weightfold.lab.verdicts import verdict
from weightfold.report.figures import drawing

QUIET = Execution(progress=False)


def light(records):
    values = records[0].values
    return Estimate(values[0], low=min(values), high=max(values), n=len(values))


def accuracy(records):
    return Estimate(100 * records[0].last_value, n=len(records))


def brighter(results):
    a, b = (results.estimate(label, "light") for label in ("bright", "dark"))
    if not a or not b:
        return verdict(None, "")
    return verdict("holds" if a.value > b.value else "does not hold", f"{a.value} and {b.value}")


def draw(results, path):
    with drawing(path, figsize=(3, 2)) as (_, axis):
        axis.set_title(results.preset)


@pytest.fixture
def made_up(fake_probe, stripes, tiny_run) -> Experiment:
    def everywhere(run):
        return dict.fromkeys(PRESETS, run)

    call = calling("brightness", "digitnet", stripes)
    dark = replace(call, recipe=replace(fake_probe.recipe, lr=0.01))
    return Experiment(
        name="made-up",
        paper="Nobody",
        title="light",
        measures=(
            Quantity(
                "light", "light <lm>", over=by_probe({"brightness": light}), digits=1, ratio=True
            ),
            Quantity("accuracy", "accuracy (%)", over=by_probe({"": accuracy}), digits=1),
        ),
        lines=(
            Line(
                "bright",
                everywhere(call),
                {"light": Printed(100.0, source="Table 1")},
                note="a lamp",
            ),
            Line("dark", {"cpu": dark}, seeds=1),
            Line("plain", everywhere(tiny_run()), {"accuracy": Printed(99.0)}),
            Line("sun", published={"light": Printed(9e9, bound=">")}, not_run="no ladder"),
        ),
        presets=dict.fromkeys(PRESETS, Preset(2, "everything <really>")),
        claims=(Claim("bright above dark", brighter),),
        draw=draw,
    )


def test_runs_of_presets(made_up):
    smoke, cpu = made_up.runs("smoke"), made_up.runs("cpu")
    assert list(smoke) == ["bright", "plain"] and list(cpu) == ["bright", "dark", "plain"]
    assert [c.seeds for c in smoke["bright"]] == [2]
    assert [c.seed for c in smoke["plain"]] == [0, 1]
    assert [c.seeds for c in cpu["dark"]] == [1]
    assert [c.seeds for c in made_up.runs("cpu", seeds=5)["bright"]] == [5]
    with pytest.raises(ValueError, match="preset='fast'"):
        made_up.runs("fast")
    with pytest.raises(ValueError, match="data='mnist'"):
        made_up.runs("cpu", data="mnist")
    with pytest.raises(ValueError, match="seeds=0"):
        made_up.runs("cpu", seeds=0)


def test_an_experiment_runs_and_reports(made_up, tmp_path, capsys):
    page = run_experiment(made_up, "cpu", tmp_path, execution=QUIET)
    text = page.read_text()
    results = read_results(made_up, "cpu", tmp_path / "runs")
    ours = results.estimate("bright", "light")
    shown = f"{ours.value:,.1f} [{ours.low:,.1f}, {ours.high:,.1f}]"
    for wanted in (
        shown, "published in Table 1", ">100.0<", f"{ours.value / 100 - 1:+.0%}", "a lamp",
        "bright above dark",
        "holds", "no ladder", "&gt; 9,000,000,000.0", "everything &lt;really&gt;", "Made up.",
        "power 1.0", "Brightness",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert text.count("Made up.") == 1  # of two findings of one probe
    assert text.count("<svg") == 4  # the draw, the curves of plain, two findings
    folder = page.parent
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(r["line"], r["measure"]) for r in rows] == [
        ("bright", "light"), ("dark", "light"), ("plain", "accuracy"), ("sun", "light")
    ]  # fmt: skip
    assert float(rows[0]["value"]) == ours.value and rows[0]["n"] == "2"
    assert rows[3]["value"] == "" and rows[3]["published_bound"] == ">"
    record = json.loads((folder / "results.json").read_text())
    assert record["claims"][0]["verdict"] == "holds"
    assert [c["finished"] for c in record["runs"]] == [True] * 4
    assert len((folder / "lines" / "dark.csv").read_text().splitlines()) == 1 + 1
    before = page.read_bytes()
    report(tmp_path, {"made-up": made_up})
    assert re.sub(rb"Page written.*", b"", page.read_bytes()) == re.sub(
        rb"Page written.*", b"", before
    )
    print_experiments({"made-up": made_up})
    assert "sun: not run, no ladder" in capsys.readouterr().out.replace("\n", " ")


def test_a_page_is_written_again_without_its_runs(made_up, tmp_path):
    page = run_experiment(made_up, "cpu", tmp_path, execution=QUIET)
    before = [line for line in page.read_text().splitlines() if "Page written" not in line]
    shutil.rmtree(tmp_path / "runs")
    report(tmp_path, {"made-up": made_up})
    after = [line for line in page.read_text().splitlines() if "Page written" not in line]
    assert after == before


def test_intervals_of_shares_stay_between_0_and_100():
    measure = Quantity("share", "share (%)", within=SHARE, digits=1)
    assert show(Estimate(99.0, low=95.0, high=103.0, n=3), measure) == "99.0 [95.0, 100.0]"
    assert show(Estimate(99.0, low=95.0, high=103.0, n=3), replace(measure, within=None)) == (
        "99.0 [95.0, 103.0]"
    )


def test_what_is_not_finished_is_told(made_up, tmp_path):
    bright = made_up.lines[0]
    bad = replace(bright, runs={p: replace(r, model="nonet") for p, r in bright.runs.items()})
    broken = replace(made_up, lines=(bad, *made_up.lines[1:]))
    with pytest.raises(CellsFailed, match="no network 'nonet'"):
        run_experiment(broken, "smoke", tmp_path, execution=QUIET)
    text = (tmp_path / "made-up" / "smoke" / "index.html").read_text()
    assert "1 runs are not finished" in text
    assert "0/2" in text and "2/2" in text
    assert "not run" in text  # the claim
