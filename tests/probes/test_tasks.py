"""The probes that go by a task's loss and measure, on every task."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

import weightfold as wf
from tasks.cases import CASES, Case
from weightfold.data import Dataset, Examples
from weightfold.probes.finding import Finding, write_finding
from weightfold.probes.intrinsic import IntrinsicDimension
from weightfold.probes.layers.cells import WORST, evaluate

QUICK = wf.Recipe(epochs=3, batch_size=16, lr=0.05, schedule="constant", crop_padding=0, flip=False)
ADAM = replace(QUICK, optimizer="adamw", lr=0.03, epochs=8)
LEARNT = {"seeds": (0, 1), "progress": False, "recipe": ADAM}
GENERIC = {
    "layer-reset": (wf.layer_reset, {"bn": "keep", "draws": 1, "reset_to": ()}),
    "lottery-ticket": (wf.lottery_ticket, {"rounds": 1, "steps": 6, "every": 3}),
}


@cache
def case(name: str) -> Case:
    return CASES[name]()


def written(found: Finding, folder) -> str:
    """The page; the finding is what its record says."""
    record = json.loads(json.dumps(found.record()))
    assert type(found).from_record(record).record() == found.record()
    return write_finding(found, folder, title="Found").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", [name for name in CASES if name != "toy-counting"])
@pytest.mark.parametrize("probe", GENERIC)
def test_a_probe_of_a_task_tells_its_measure(probe, task, tmp_path):
    measure, options = GENERIC[probe]
    given = case(task)
    if probe == "lottery-ticket" and given.task.model_computes_loss:
        with pytest.raises(TypeError, match=rf"'{given.task.name}'.*loss"):
            measure(given.net, given.task, seeds=(0,), recipe=QUICK, progress=False, **options)
        return
    found = measure(given.net, given.task, seeds=(0,), recipe=QUICK, progress=False, **options)
    assert found.measure == given.task.measure
    text = written(found, tmp_path)
    assert given.task.measure.name in text or "error" in text
    assert ("accuracy" in (tmp_path / "results.csv").read_text()) == (
        task == "classify" and probe == "lottery-ticket"
    ) or task == "multilabel"


def test_dimension_of_a_regression_is_where_its_error_falls_below_the_bar(tmp_path):
    given = case("regress")
    found = wf.intrinsic_dimension(given.net, given.task, resolution=1.0, start=4, **LEARNT)
    mean, trivial = found.baseline.mean, found.trivial
    assert 0 < mean < trivial and found.bar == trivial + 0.9 * (mean - trivial)
    low, high = found.bracket
    assert all(v <= found.bar for v in found.curve[high])
    assert low is None or any(v > found.bar for v in found.curve[low])
    assert all(run.best <= run.value for run in found.trained)
    assert "mse" in found.headline and "accuracy" not in written(found, tmp_path)
    assert "%" not in found.table().columns[1]


def test_an_absolute_bar_of_a_regression_is_an_error():
    given = case("regress")
    options = {"resolution": 1.0, "start": 64, "absolute": True, **LEARNT}
    assert wf.intrinsic_dimension(given.net, given.task, threshold=1.5, **options).bar == 1.5
    for threshold, hint in ((1e-6, "higher"), (1e6, "below")):
        with pytest.raises(ValueError, match=rf"threshold={threshold}.*{hint}"):
            wf.intrinsic_dimension(given.net, given.task, threshold=threshold, **options)


def test_a_ticket_of_a_regression_is_worse_where_its_error_is_higher():
    given = case("regress")
    found = wf.lottery_ticket(given.net, given.task, rounds=1, fraction=0.05, every=10, **LEARNT)
    full = sum(found.results.values("full", 0, "value").values()) / 2
    assert full < found.chance and not found.doubt.startswith("The full network hardly")

    def with_tickets(value):
        outcomes = [replace(o, value=value) if o.kind == "ticket" else o for o in found.outcomes]
        return replace(found, outcomes=tuple(outcomes))

    assert with_tickets(full + 1.1 * found.tolerance).smallest is None
    good = with_tickets(full + 0.9 * found.tolerance)
    assert good.smallest == found.results.remaining(1) and "above" in good.headline
    assert with_tickets(100.0).doubt


def test_layers_of_a_regression_are_critical_by_a_part_of_the_trivial_error():
    given = case("regress")
    found = wf.layer_reset(given.net, given.task, bn="keep", draws=1, reset_to=(), **LEARNT)
    assert found.chance == given.task.baseline() and found.bar == 0.05 * found.chance
    assert found.error == "mse" and "mse" in found.headline
    net = given.net(0)
    outputs = net(given.task.dataset.test.inputs)
    wanted = (outputs - given.task.dataset.test.targets).square().mean().item()
    assert evaluate(net, given.task)[0] == pytest.approx(wanted, rel=1e-6)
    with torch.no_grad():
        net[2].bias.fill_(torch.inf)
    error, loss = evaluate(net, given.task)
    assert loss is None and error == pytest.approx(WORST * found.chance, rel=1e-6)


def test_runs_side_by_side_are_those_of_one_after_another():
    given = case("regress")
    alone, together = (
        wf.intrinsic_dimension(
            given.net, given.task, d_max=8, start=8, together=size, **LEARNT
        ).baselines
        for size in (1, 4)
    )
    assert [r.value for r in together] == pytest.approx([r.value for r in alone], rel=1e-4)


def test_a_task_that_cannot_be_stacked_runs_one_by_one_or_is_refused_by_name(tmp_path):
    given = case("toy-counting")
    reset = wf.layer_reset(given.net, given.task, bn="keep", draws=1, reset_to=(), **LEARNT)
    assert {cell.loss for cell in reset.cells} == {None}
    assert "count_error" in written(reset, tmp_path)
    with pytest.raises(TypeError, match=r"data is the task 'toy-counting'.*validation loss"):
        wf.lottery_ticket(given.net, given.task, **LEARNT)
    with pytest.raises(ValueError, match=r"'toy-counting'.*together=1"):
        wf.intrinsic_dimension(given.net, given.task, together=4, **LEARNT)


@pytest.mark.parametrize(
    ("probe", "options", "why"),
    [
        (wf.memorization, {}, "random labels"),
        (wf.example_ledger, {}, "told right"),
        (wf.critical_sample_ratio, {"radius": 1.0}, "another predicted class"),
    ],
)
def test_probes_of_class_labels_refuse_another_task_and_say_why(probe, options, why):
    given = case("regress")
    with pytest.raises(TypeError, match=rf"data is the task 'regress'.*{why}"):
        probe(given.net, given.task, progress=False, **options)


def test_outputs_that_do_not_fit_are_refused_before_training(tmp_path):
    given = case("regress")
    for probe in (wf.intrinsic_dimension, wf.lottery_ticket):
        with pytest.raises(ValueError, match=r"shape \(8, 3\).*'regress'"):
            probe(nn.Linear(5, 3), given.task, folder=tmp_path / "run", **LEARNT)
    assert not (tmp_path / "run").exists()


def test_records_of_the_version_before_are_read():
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    y = (x[:, 0] > 0).long()
    data = Dataset("made", Examples(x[:100], y[:100]), Examples(x[100:], y[100:]), 2)
    found = wf.intrinsic_dimension(nn.Linear(4, 2), data, start=10, resolution=1.0, **LEARNT)
    record = found.record()
    for name in ("measure", "trivial"):
        del record[name]
    for run in (*record["baselines"], *record["trained"]):
        run["accuracy"] = run.pop("value")
    again = IntrinsicDimension.from_record(record)
    assert again.dimension == found.dimension and again.measure.name == "accuracy"
