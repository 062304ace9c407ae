"""Run folders of version 0.1: read, and not gone on with."""

import json

import pytest

from weightfold.train import Row, fit
from weightfold.train.checkpoint import finished, save_weights

ROWS = [
    {"epoch": 1, "lr": 0.1, "train_loss": 1.2, "train_error": 0.5, "test_accuracy": 0.25,
     "validation_accuracy": None, "seconds": 1.0, "seconds_per_step": 0.1},
    {"epoch": 2, "lr": 0.1, "train_loss": 0.7, "train_error": 0.25, "test_accuracy": 0.75,
     "validation_accuracy": None, "seconds": 1.0, "seconds_per_step": 0.1},
]  # fmt: skip


@pytest.fixture
def old(tmp_path, make_net):
    history = {
        "best_epoch": 2,
        "best_accuracy": 0.75,
        "rows": ROWS,
        "selection": "test (as the paper; optimistic)",
        "final_train_error": 0.125,
    }
    (tmp_path / "history.json").write_text(json.dumps(history))
    run = {"sessions": [{"weightfold": "0.1.0"}], "configuration": {"seed": 0}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    save_weights(make_net(), tmp_path / "last.safetensors")
    return tmp_path


def test_its_history_is_read(old):
    history = finished(old)
    assert history.best_epoch == 2 and history.best_value == history.last() == 0.75
    assert history.last(part="train") == 0.75 and history.last(part="train_eval") == 0.875


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"rows": ROWS[1:]},
        {"rows": ROWS[::-1]},
        {"rows": [{**ROWS[0], "step": 4}, {**ROWS[1], "step": 4}]},
        {"selection": 3},
        {"finished": "yes"},
        {"measures": [{"name": "accuracy"}]},
        {"final_train_error": "0.125"},
    ],
)
def test_a_history_of_another_form_is_refused(old, change):
    path = old / "history.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"history\.json is damaged"):
        finished(old)


def test_one_of_several_domains_is_read():
    values = {"test_accuracy": 0.5, "train_error": None}
    row = Row.from_flat({**ROWS[0], "domains": {"birds": values}})
    assert row.domains == {"birds": {"test_accuracy": 0.5, "train_accuracy": None}}
    assert Row.from_flat(row.flat()) == row


def test_going_on_with_it_is_refused_by_its_version(old, dataset, make_net, quick):
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with pytest.raises(FileExistsError, match=r"weightfold 0\.1\.0 \(format 1"):
        fit(make_net(), dataset, quick, folder=old, progress=False)
    after = {path.name: path.read_bytes() for path in old.iterdir() if path.name != ".lock"}
    assert before == after


def test_a_damaged_record_is_named(old, dataset, make_net, quick):
    (old / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json"):
        fit(make_net(), dataset, quick, folder=old, progress=False)
