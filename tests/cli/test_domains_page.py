"""The page that compares strategies, from histories that are known."""

import csv
import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from weightfold.lab import domains_study_page as domains_page
from weightfold.lab.domains_study_page import Outcome, _cells, _verdicts, write_study
from weightfold.train.domains.history import DomainsHistory, DomainsRow

ASKED = {"recipe": {"lr": 0.1}, "joint": {"sampler": "all"}, "model": "digitnet", "folder": "out"}


def history(accuracies: dict[str, list[float]]) -> DomainsHistory:
    """A run whose domains reached these test accuracies, epoch by epoch."""
    epochs = len(next(iter(accuracies.values())))
    rows = [
        DomainsRow(
            epoch=epoch + 1,
            lr=0.1,
            train_loss=1.0,
            train_error=0.5,
            test_accuracy=sum(values[epoch] for values in accuracies.values()) / len(accuracies),
            validation_accuracy=None,
            seconds=2.0,
            seconds_per_step=0.1,
            domains={
                name: {"test_accuracy": values[epoch], "train_loss": 1.0}
                for name, values in accuracies.items()
            },
        )
        for epoch in range(epochs)
    ]
    return DomainsHistory(tuple(rows), "test")


def outcome(strategy: str, seed: int, birds: float, cars: float) -> Outcome:
    run = history({"birds": [0.1, birds], "cars": [0.9, cars]})
    return Outcome(
        strategy, seed, {"birds": run, "cars": run}, 1000, 4_500_000, 3_000_000, 0.2, 0.6
    )


OUTCOMES = [
    outcome("bottom", 0, 0.80, 0.70),
    outcome("bottom", 1, 0.84, 0.70),
    outcome("top", 0, 0.70, 0.71),
    outcome("top", 1, 0.74, 0.71),
]


def test_a_column_a_strategy_with_the_last_epochs_accuracies():
    columns, rows = _cells(OUTCOMES)
    assert columns == ["", "bottom", "top"]
    cells = {row[0]: row[1:] for row in rows}
    # std of 80 and 84 is sqrt(2 * 2**2) = 2.83
    assert cells["birds"] == ["82.00 ± 2.83", "72.00 ± 2.83"]
    assert cells["mean over domains"] == ["76.00 ± 1.41", "71.50 ± 1.41"]
    assert cells["parameters"] == ["1,000", "1,000"]
    assert cells["MB"] == ["4.500", "4.500"]
    assert cells["MB shared"] == ["3.000", "3.000"]
    assert cells["MB a domain"] == ["0.750", "0.750"]
    assert cells["own multiply-adds"] == ["60.0%", "60.0%"]


def test_verdicts_are_paired_by_seed_whatever_their_order():
    (row,) = _verdicts([OUTCOMES[1], OUTCOMES[0], *OUTCOMES[2:]]).rows
    # both seeds differ by 4.5 points: (10 - 1) / 2
    assert row == ["bottom against top", "+4.50", "+4.50 to +4.50", "1 of 2", "bottom is better"]


@pytest.mark.parametrize(
    ("birds", "verdict"),
    [([0.6, 0.9], "unclear"), ([0.5, 0.54], "top is better")],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(birds, verdict):
    bottom = [outcome("bottom", seed, value, 0.7) for seed, value in enumerate(birds)]
    (row,) = _verdicts([*bottom, *OUTCOMES[2:]]).rows
    assert row[-1] == verdict


def test_one_seed_gives_no_verdict():
    (row,) = _verdicts([OUTCOMES[0], OUTCOMES[2]]).rows
    assert row[2:] == ["", "1 of 2", "one seed: unknown"]


def test_seconds_count_a_joint_run_once():
    joint = OUTCOMES[0]
    apart = replace(joint, histories={n: history({n: [0.5]}) for n in ("birds", "cars")})
    assert joint.seconds == 4.0  # two epochs of 2 s
    assert apart.seconds == 4.0  # two runs of one epoch


def test_files_of_a_study(tmp_path):
    page = write_study(OUTCOMES, tmp_path, title="birds & cars", asked=ASKED)
    text = page.read_text()
    assert "birds &amp; cars" in text
    assert text.count("<svg") == 2
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [float(row["accuracy/birds"]) for row in rows] == [0.8, 0.84, 0.7, 0.74]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["asked"] == ASKED
    of = {(row["strategy"], row["domain"]): row["mean"] for row in results["results"]}
    assert of["bottom", "birds"] == pytest.approx(0.82)
    assert of["top", None] == pytest.approx(0.715)


def test_a_page_of_one_strategy_compares_nothing(tmp_path):
    page = write_study(OUTCOMES[:1], tmp_path, title="one", asked=ASKED).read_text()
    assert "What this says" not in page
    assert "no spread is known" in page


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_whole_numbers(epochs, tmp_path, monkeypatch):
    ticks, drawing = [], domains_page.drawing

    @contextmanager
    def watched(path, **options):
        with drawing(path, **options) as (figure, axes):
            yield figure, axes
            ticks.extend(axes.flat[0].get_xticks() if path.name == "curves.png" else [])

    monkeypatch.setattr(domains_page, "drawing", watched)
    run = history({"birds": [0.5] * epochs})
    write_study([replace(OUTCOMES[0], histories={"birds": run})], tmp_path, title="", asked=ASKED)
    assert 1 in ticks or epochs > 2
    assert all(tick == round(tick) for tick in ticks)


def test_settings_are_told_by_group_and_options_that_are_not_set_are_left_out():
    sharing = {"fraction": 0.2, "num_filters": None, "shared_norms": []}
    asked = {**ASKED, "domains": ["birds=b", "cars=c"], "plan": None, "sharing": sharing}
    assert domains_page._settings(asked).split("\n\n") == [
        "model digitnet; domains birds=b cars=c",
        "Sharing: fraction 0.2",
        "Together: sampler all",
        "Recipe: lr 0.1",
    ]
    told = domains_page._settings({**asked, "plan": "plan.json"})
    assert "plan plan.json" in told
    assert "fraction" not in told
