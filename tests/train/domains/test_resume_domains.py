from dataclasses import replace

import pytest
import torch
from torch import nn

from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.train.domains import DomainOptions, Joint, fit_domains


def train(net, data, recipe, folder, *, seed=5, progress=False, **options):
    return fit_domains(
        net,
        data,
        recipe,
        seed=seed,
        folder=folder,
        device="cpu",
        progress=progress,
        options=DomainOptions(**options),
    )


def figures(history):
    return [replace(row, seconds=0, seconds_per_step=0) for row in history.rows]


@pytest.mark.parametrize(
    ("joint", "optimizer", "stop"),
    [
        (Joint(), {"clip_norm": 1.0}, 2),
        (Joint(loss_weights="uncertainty", shared_gradient="mean"), {"flip": True}, 1),
        (
            Joint(sampler="temperature", temperature=2, epoch=5, loss_weights="uncertainty"),
            {"optimizer": "adamw", "lr": 1e-3},
            2,
        ),
        (Joint(head_epochs=2, sampler="round_robin", epoch="min"), {"crop_padding": 1}, 1),
    ],
)
def test_a_stopped_run_ends_with_the_same_bits(
    make_net, datasets, quick, tmp_path, joint, optimizer, stop
):
    recipe, options = replace(quick, **optimizer), {"joint": joint, "validation": 0.2}

    def interrupt(row):
        if row.epoch == stop:
            raise KeyboardInterrupt

    stopped = make_net()
    with pytest.raises(KeyboardInterrupt):
        train(stopped, datasets, recipe, tmp_path / "a", progress=interrupt, **options)
    assert all(p.requires_grad for p in stopped.parameters())
    resumed, whole = make_net(), make_net()
    one = train(resumed, datasets, recipe, tmp_path / "a", **options)
    two = train(whole, datasets, recipe, tmp_path / "b", **options)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert figures(one) == figures(two)
    again = make_net()
    assert train(again, datasets, recipe, tmp_path / "a", **options) == one
    assert torch.equal(next(again.parameters()), next(resumed.parameters()))


def first_row(jacobian):
    return jacobian[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint": Joint(epoch=3)}, "joint.epoch: 'max' there, 3 now"),
        ({"aggregator": first_row}, "aggregator: None there, '<function first_row>' now"),
    ],
)
def test_another_run_in_the_folder_is_refused(make_net, datasets, quick, tmp_path, change, message):
    train(make_net(), datasets, replace(quick, epochs=1), tmp_path)
    with pytest.raises(FileExistsError, match=message):
        train(make_net(), datasets, replace(quick, epochs=1), tmp_path, **change)


def test_two_processes_take_the_steps_of_one(datasets, quick, tmp_path):
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(  # no batch norm, which sees its process's images only
            nn.Conv2d(1, 4, 3),
            nn.Tanh(),
            nn.Conv2d(4, 4, 3),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(64, 2),
        )
        plan = plan_sharing(model, strategy="bottom", fraction=0.3)
        return share(model, {"birds": 4, "cars": 3}, plan)

    joint = Joint("round_robin", epoch="min", loss_weights="uncertainty", head_epochs=1)
    recipe = replace(quick, epochs=2, batch_size=15)  # slices of 8 and 7
    one, two = make(), make()
    alone = train(one, datasets, recipe, tmp_path / "one", joint=joint)
    both = train(two, datasets, recipe, tmp_path / "two", joint=joint, devices=2)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-5
    assert both.last_values == alone.last_values
    assert both.rows[-1]["train_loss"] == pytest.approx(alone.rows[-1]["train_loss"], rel=1e-4)
    for name, figures_ in both.rows[-1].domains.items():
        wanted = alone.rows[-1].domains[name]["weight"]
        assert figures_["weight"] == pytest.approx(wanted, rel=1e-5)
