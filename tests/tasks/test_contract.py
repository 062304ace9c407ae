"""What holds for every registered task."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from tasks.cases import CASES
from weightfold.tasks import available
from weightfold.train import Options, Recipe, evaluate, fit
from weightfold.train.evaluation import computed, judged
from weightfold.train.strategies.stack import Stack

RECIPE = Recipe(epochs=6, batch_size=16, lr=0.1, schedule="constant", crop_padding=0, flip=False)


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]()


def test_every_task_is_here():
    ours, known = (
        {name for name in names if not name.startswith("toy-")} for names in (CASES, available())
    )
    assert ours == known


def test_losses_and_scores_are_one_a_example_and_known_by_the_measures(case):
    task, net = case.task, case.net(0)
    x, y = next(iter(task.batches("test").epoch(0)))
    outputs = task.read(net.eval()(x))
    scores = task.scores(outputs, y)
    assert all(score.shape == (len(x),) for score in scores.values())
    metrics = task.metrics()
    for metric in metrics.values():
        metric.update(outputs, y)
    named = {measure.name: measure.of_part for measure in task.measures}
    assert set(scores) == {name for name, of_part in named.items() if not of_part}
    assert set(computed(metrics)) == {name for name, of_part in named.items() if of_part}
    if isinstance(outputs, torch.Tensor):
        task.check_outputs(net, net(x), y)
        assert task.outputs == outputs.shape[1]
    losses = task.objective(net.train(), x, y).losses
    assert losses.shape == (() if task.model_computes_loss else (len(x),)) and (losses >= 0).all()


def test_an_example_is_judged_by_itself(case):
    task, net = case.task, case.net(0)
    x, y = next(iter(task.batches("test").epoch(0)))
    outputs = task.read(net.eval()(x))
    whole = judged(task, outputs, y)
    for i in range(3):
        for name, one in judged(task, outputs[i : i + 1], y[i : i + 1]).items():
            torch.testing.assert_close(one, whole[name][i : i + 1])


def test_the_objective_runs_under_vmap_or_the_task_says_that_it_does_not(case):
    task, nets = case.task, [case.net(seed) for seed in (0, 1)]
    if not task.stackable:
        with pytest.raises(ValueError, match=rf"task '{task.name}'.*2 networks"):
            Stack(nets, task, RECIPE)
        return
    x, y = next(iter(task.batches("test").epoch(0)))
    stacked = {
        name: torch.stack([net.state_dict()[name] for net in nets]) for name in nets[0].state_dict()
    }

    def losses(tensors):
        return task.objective(lambda x: functional_call(nets[0], tensors, (x,)), x, y).losses

    found = vmap(losses)(stacked)
    for net, row in zip(nets, found, strict=True):
        torch.testing.assert_close(row, task.objective(net, x, y).losses)


def test_training_beats_the_trivial_predictor(case, tmp_path):
    task, net = case.task, case.net(0)
    before = evaluate(net, task)
    history = fit(net, task, replace(RECIPE, epochs=30), folder=tmp_path, progress=False)
    after, name = evaluate(net, task), task.measure.name
    losses = [row["train_loss"] for row in history.rows]
    assert after[name] != before[name]
    assert ("loss" in after) is not task.model_computes_loss
    if not task.model_computes_loss:
        assert after["loss"] < before["loss"]
    assert task.measure.best([task.baseline(), after[name]]) == 1
    assert history.last() == pytest.approx(after[name])
    assert history.selection == "validation"
    chosen = [row[f"validation_{name}"] for row in history.rows]
    assert history.best_epoch == 1 + task.measure.best(chosen)
    saved = json.loads((tmp_path / "history.json").read_text())
    assert saved[f"best_{name}"] == history.best_value
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]


def test_a_net_that_does_not_fit_is_named_with_the_task_before_any_work(case, tmp_path):
    net = nn.Linear(5, 7)
    with pytest.raises(ValueError, match=rf"net=Linear.*'{case.task.name}' on 'made'"):
        fit(net, case.task, RECIPE, folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_identity_is_of_contents(case):
    task = case.task
    again = replace(task, dataset=replace(task.dataset, test=task.dataset.train))
    assert task.identity() == replace(task).identity() != again.identity()
    json.dumps(task.identity())


def test_hold_out_leaves_the_rest_to_train_on(case):
    task = replace(case.task, dataset=replace(case.task.dataset, validation=None))
    held = task.hold_out(8, seed=1)
    assert len(held.dataset.train) == 40 and len(held.dataset.validation) == 8
    with pytest.raises(ValueError, match="validation=5"):
        held.hold_out(5, seed=1)
    with pytest.raises(ValueError, match="validation=-1"):
        Options(validation=-1)
