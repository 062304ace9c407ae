import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from weightfold.train import RECIPES, Distillation, Recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"clip_norm": 0.0}, "clip_norm=0.0"),
        ({"crop_padding": -1}, "crop_padding=-1"),
        ({"optimizer": "adam"}, "'sgd', 'adamw'"),
        ({"decay_on": "weights"}, "'psi', 'theta'"),
        ({"schedule": "cos"}, "'step', 'cosine', 'linear', 'constant'"),
        ({"optimizer": "adamw", "nesterov": True}, "nesterov=True"),
        ({"momentum": 0.0, "reset_momentum_each_epoch": True}, "reset_momentum_each_epoch"),
        ({"schedule": "step"}, "milestones=()"),
        ({"schedule": "cosine", "milestones": (3,)}, "milestones=(3,)"),
        ({"schedule": "step", "milestones": (6, 12)}, "epochs - 1 = 11"),
        ({"schedule": "step", "milestones": (6, 3)}, "milestones=(6, 3)"),
        ({"warmup_epochs": 12}, "below epochs=12"),
    ],
)
def test_a_wrong_value_is_named(arguments, message):
    with pytest.raises(ValueError) as error:
        Recipe(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"weight": 0.0}, {"weight": 1.5}])
def test_a_wrong_distillation_is_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Distillation(**arguments)


STEPS = 7


@pytest.mark.parametrize(
    ("arguments", "scheduler"),
    [
        (
            {"schedule": "step", "milestones": (2, 4), "gamma": 0.3},
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2 * STEPS, 4 * STEPS], gamma=0.3),
        ),
        (
            {"schedule": "cosine"},
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=6 * STEPS),
        ),
        (
            {"schedule": "linear"},
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=6 * STEPS),
        ),
        ({"schedule": "constant"}, lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0)),
    ],
)
def test_schedules_are_torchs(arguments, scheduler):
    recipe = Recipe(epochs=6, lr=0.2, **arguments)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    schedule = scheduler(optimizer)
    for step in range(6 * STEPS):
        assert recipe.lr_at(step, STEPS) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_warmup_rises_and_the_schedule_takes_the_rest():
    recipe = Recipe(epochs=5, lr=1.0, schedule="linear", warmup_epochs=1)
    lrs = [recipe.lr_at(step, 4) for step in range(20)]
    assert lrs[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert lrs[-1] == pytest.approx(1 / 16)


def test_the_papers_schedule():
    recipe = RECIPES["expandnets-cifar"]
    by_epoch = [recipe.lr_at(391 * epoch, 391) for epoch in (0, 49, 50, 99, 100, 149)]
    assert by_epoch == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    assert (recipe.weight_decay, recipe.batch_size, recipe.momentum) == (0, 128, 0.9)
    assert recipe.reset_momentum_each_epoch and not recipe.nesterov
    short = replace(recipe, epochs=12, milestones=(6, 9))
    assert RECIPES["expandnets-cifar-12"] == short


def test_recipes_need_no_torch():
    code = "import sys; from weightfold.train import RECIPES; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "False", answer.stderr


def test_it_prints_what_differs_from_its_defaults():
    assert repr(Recipe()) == "Recipe()"
    given = Recipe(lr=0.2, schedule="step", milestones=(3,))
    assert repr(given) == "Recipe(lr=0.2, schedule='step', milestones=(3,))"
    assert eval(repr(given)) == given
