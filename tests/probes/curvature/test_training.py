"""The probes that follow a training: smoothness and confusion."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import weightfold as wf
from weightfold.data import Dataset
from weightfold.nets.noise import CovariateNoise
from weightfold.probes.confusion.finding import density
from weightfold.probes.confusion.options import ConfusionOptions
from weightfold.probes.confusion.probe import cosines
from weightfold.probes.objective import Objective
from weightfold.probes.smoothness.measure import CAP, moment
from weightfold.tasks.registry import as_task
from weightfold.train import Recipe

from .conftest import norm_net

RECIPE = Recipe(epochs=2, lr=0.1, batch_size=10, momentum=0.0, schedule="constant",
                crop_padding=0, flip=False)  # fmt: skip
QUIET = {"progress": False, "device": "cpu"}


def gradients(net, x, y):
    found = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    return torch.cat([g.flatten() for g in found])


def test_a_moment_by_hand(samples):
    """Batch norm with the batch's statistics; layers below moved, the layer's own not."""
    net = norm_net().train()
    x, y = samples.train.inputs.double(), samples.train.targets
    objective = Objective(net, samples, coordinates="psi", bn="batch")
    found = moment(objective, 3, points=2, lr=0.3, shifts=True)
    theta = nn.utils.parameters_to_vector(net.parameters()).detach()
    g = gradients(net, x, y)

    def at(point):
        nn.utils.vector_to_parameters(point, net.parameters())
        return gradients(net, x, y)

    changes = [(at(theta - a * g) - g).norm().item() for a in (CAP / 2, CAP)]
    assert found.changes == pytest.approx((min(changes), max(changes)), rel=1e-9)
    beta = max(c / (a * g.norm().item()) for c, a in zip(changes, (CAP / 2, CAP), strict=True))
    assert found.beta == pytest.approx(beta, rel=1e-9)
    # The last layer (99 weights) after conv and norm (24) have moved.
    below = len(theta) - 99
    moved = torch.cat([theta[:below] - 0.3 * g[:below], theta[below:]])
    weights = slice(below, below + 96)
    (shift,) = found.shifts
    assert shift.layer == "5"
    assert shift.l2 == pytest.approx((at(moved) - g)[weights].norm().item(), rel=1e-9)
    assert shift.gradient == pytest.approx(g[weights].norm().item(), rel=1e-9)


def test_random_numbers_are_the_same_at_all_points(samples):
    net = nn.Sequential(nn.Flatten(), CovariateNoise(), nn.Linear(36, 3)).train()
    objective = Objective(net, samples, coordinates="psi", bn="batch")
    found = moment(objective, 0, points=8, lr=0.1, shifts=False)
    # The loss of a linear layer is smooth: near by, the gradient changes little.
    assert found.changes[0] < 0.2 * found.gradient


def test_noise_is_another_in_each_step_and_none_in_eval():
    torch.manual_seed(0)
    noise, x = CovariateNoise(), torch.zeros(4000, 3)
    a, b = noise(x), noise(x)
    means = torch.stack([a.mean(0), b.mean(0)])
    assert (means.abs() <= 0.5 + 0.01).all() and (means[0] - means[1]).abs().max() > 0.05
    spread = noise(torch.ones(4000, 3) * 10).std(0)
    assert ((spread > 0.8) & (spread < 1.2)).all()  # 10 times N(., 0.1), and U(-0.1, 0.1)
    assert torch.equal(noise.eval()(x), x)


def test_cosines_by_hand(samples):
    net, batch = norm_net(), 10
    task = as_task(samples)
    found = cosines(net, task, "theta", ConfusionOptions(pairs=50), batch, (0, 1))
    objective = Objective(net, task, bn="batch", batch_size=batch, examples=30)
    net = net.train()
    g = torch.stack([gradients(net, b.inputs, b.targets) for b in objective.batches()])
    g = g / g.norm(dim=1, keepdim=True)
    wanted = sorted({round((g[i] @ g[j]).item(), 9) for i in range(3) for j in range(i)})
    assert sorted({round(c, 9) for c in found}) == wanted


def test_smoothness_from_end_to_end(samples, tmp_path):
    found = wf.smoothness(
        lambda seed: norm_net(seed=seed).float(), samples, seeds=2, recipe=RECIPE, every=2,
        points=2, folder=tmp_path, **QUIET,
    )  # fmt: skip
    assert [m.step for m in found.courses[0].moments] == [0, 2, 4, 6]
    assert len(found.courses) == 2 and found.courses[0].test != ()
    shares = found.courses[0].histograms[0].shares
    assert len(shares) == 4 and all(0.9 < sum(one) <= 1 + 1e-6 for one in shares)
    again = type(found).from_record(found.record())
    assert again.rows() == found.rows()
    found.draw(tmp_path / "a.png")


def test_confusion_of_an_expanded_network_in_both_spaces(samples, tmp_path):
    found = wf.confusion(
        lambda seed: wf.expand(norm_net(seed=seed).float(), conv="ck", linear=None, seed=seed),
        samples, seeds=2, recipe=RECIPE, pairs=20, **QUIET,
    )  # fmt: skip
    assert found.spaces == ("theta", "psi")
    for run in found.runs:
        for space in found.spaces:
            assert len(run.minimum[space]) == 2 and min(run.last[space]) == run.minimum[space][-1]
            assert all(-1 - 1e-6 <= c <= 1 + 1e-6 for c in run.last[space])
    assert type(found).from_record(found.record()).rows() == found.rows()
    found.draw(tmp_path / "a.png")


def test_a_density_integrates_to_one():
    at, values = density([0.1, 0.2, 0.9])
    assert math.isclose(sum(values) * (at[1] - at[0]), 1, rel_tol=0.01)  # 3 sigma, 0.3% outside


def test_bad_input(samples: Dataset):
    for message, call in {
        "every=0": lambda: wf.smoothness(norm_net().float(), samples, every=0, **QUIET),
        "pairs=0": lambda: wf.confusion(norm_net().float(), samples, pairs=0, **QUIET),
        "batch_size=20": lambda: wf.confusion(norm_net().float(), samples, batch_size=20, **QUIET),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
