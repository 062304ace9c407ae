"""The comparison of strategies, from histories that are known."""

import csv
import json
from contextlib import contextmanager

import pytest

from weightfold.lab.backbone import StudyRun
from weightfold.lab.page import write_results
from weightfold.lab.results import Outcome
from weightfold.lab.strategies import compared
from weightfold.lab.study import StudyRecord
from weightfold.lab.tables import results_table
from weightfold.report import figures
from weightfold.train import History, Row

ASKED = {"recipe": {"lr": 0.1}, "joint": {"sampler": "all"}, "model": "digitnet", "folder": "out"}


def history(accuracies: dict[str, list[float]]) -> History:
    """A run whose domains reached these test accuracies, epoch by epoch."""
    epochs = len(next(iter(accuracies.values())))
    rows = [
        Row(
            epoch=epoch + 1,
            lr=0.1,
            seconds=2.0,
            seconds_per_step=0.1,
            values={
                "train_loss": 1.0,
                "train_accuracy": 0.5,
                "test_accuracy": sum(v[epoch] for v in accuracies.values()) / len(accuracies),
                **{f"test_accuracy/{name}": v[epoch] for name, v in accuracies.items()},
                **{f"train_loss/{name}": 1.0 for name in accuracies},
            },
        )
        for epoch in range(epochs)
    ]
    return History(tuple(rows), "test", finished=True)


def outcome(strategy: str, seed: int, birds: float, cars: float) -> Outcome:
    run = history({"birds": [0.1, birds], "cars": [0.9, cars]})
    record = StudyRecord({"birds": run, "cars": run}, 1000, 4_500_000, 3_000_000, 0.2, 0.6)
    return Outcome(StudyRun(strategy, seed, None), record)


BOTTOM = (outcome("bottom", 0, 0.80, 0.70), outcome("bottom", 1, 0.84, 0.70))
TOP = (outcome("top", 0, 0.70, 0.71), outcome("top", 1, 0.74, 0.71))


def both(bottom=BOTTOM, top=TOP):
    return compared({"bottom": bottom, "top": top}, "birds & cars")


def test_a_line_a_strategy_with_the_last_epochs_accuracies():
    results = both()
    table = results_table(results, results.experiment.lines)
    assert [row[0] for row in table.rows] == ["bottom", "top"]
    columns = {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}
    # std of 80 and 84 is sqrt(2 * 2**2) = 2.83
    assert columns["birds (%)"] == ["82.00 ± 2.83", "72.00 ± 2.83"]
    assert columns["mean over domains (%)"] == ["76.00 ± 1.41", "71.50 ± 1.41"]
    assert columns["parameters"] == ["1,000 ± 0", "1,000 ± 0"]
    assert columns["MB"] == ["4.500 ± 0.000", "4.500 ± 0.000"]
    assert columns["MB a domain"] == ["0.750 ± 0.000", "0.750 ± 0.000"]
    assert columns["own multiply-adds (%)"] == ["60.0 ± 0.0", "60.0 ± 0.0"]
    # both seeds differ by 4.5 points: (10 - 1) / 2
    assert columns["minus bottom"] == ["", "-4.50"]


def verdict_of(results):
    (claim,) = results.experiment.claims
    assert claim.text == "bottom against top"
    return claim.check(results)


def test_verdicts_are_paired_by_seed_whatever_their_order():
    for bottom in (BOTTOM, BOTTOM[::-1]):
        verdict = verdict_of(both(bottom))
        assert verdict.judged == "holds"
        assert "bottom is more accurate than top: +4.50 points" in verdict.numbers
        assert "[+4.50, +4.50]" in verdict.numbers and "higher in 1 of 2" in verdict.numbers


@pytest.mark.parametrize(
    ("birds", "said"),
    [([0.6, 0.9], "cannot be told apart"), ([0.5, 0.54], "bottom is less accurate than top")],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(birds, said):
    bottom = tuple(outcome("bottom", seed, value, 0.7) for seed, value in enumerate(birds))
    assert said in verdict_of(both(bottom)).numbers


def test_one_seed_gives_no_verdict():
    verdict = verdict_of(both(BOTTOM[:1], TOP[:1]))
    assert verdict.judged == "undecided" and "one seed" in verdict.numbers


def test_seconds_count_a_joint_run_once():
    joint = BOTTOM[0].record
    apart = {n: history({n: [0.5]}) for n in ("birds", "cars")}
    assert joint.seconds == 4.0  # two epochs of 2 s
    assert StudyRecord(apart, 1, 1, 1, 1.0, 1.0).seconds == 4.0  # two runs of one epoch


def test_a_record_is_read_as_it_was_written():
    run, record = BOTTOM[0].run, BOTTOM[0].record
    written = json.loads(json.dumps(run.to_json(record)))
    assert len(written["runs"]) == 1
    assert run.from_json(written) == record


def test_files_of_a_study(tmp_path):
    page = write_results(both(), tmp_path, asked=ASKED)
    text = page.read_text()
    assert "birds &amp; cars" in text
    assert text.count("<svg") == 3  # accuracy, curves, storage
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [float(row["accuracy/birds"]) for row in rows] == pytest.approx([80, 84, 70, 74])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["asked"] == ASKED
    of = {(row["line"], row["measure"]): row["value"] for row in results["results"]}
    assert of["bottom", "accuracy/birds"] == pytest.approx(82)
    assert of["top", "accuracy"] == pytest.approx(71.5)


def test_a_page_of_one_strategy_compares_nothing(tmp_path):
    results = compared({"bottom": BOTTOM[:1]}, "one")
    assert not results.experiment.claims and not results.experiment.baseline
    assert "claims are judged" not in write_results(results, tmp_path, asked=ASKED).read_text()


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_whole_numbers(epochs, tmp_path, monkeypatch):
    ticks, drawing = [], figures.drawing

    @contextmanager
    def watched(path, **options):
        with drawing(path, **options) as (figure, axes):
            yield figure, axes
            ticks.extend(axes.flat[0].get_xticks() if path.name == "curves.png" else [])

    monkeypatch.setattr(figures, "drawing", watched)
    record = StudyRecord({"birds": history({"birds": [0.5] * epochs})}, 1, 1, 1, 1.0, 1.0)
    results = compared({"bottom": (Outcome(BOTTOM[0].run, record),)}, "")
    write_results(results, tmp_path, asked=ASKED)
    assert ticks and (1 in ticks or epochs > 2)
    assert all(tick == round(tick) for tick in ticks)
