from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.train import NonFiniteLoss, Options, fit, fit_seeds


class Scaled(Chart):
    """The linear layer's weight as a product of two coordinates."""

    kind = "scaled-for-tests"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1))
        self.direction = nn.Parameter(torch.empty(4, 64).uniform_(-0.1, 0.1))

    def forward(self, **at):
        return {"5.weight": self.scale * self.direction}


def net_of(seed: int, charted: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 4),
        )
        model[0].bias.requires_grad_(False)
        return Charted(model, [Scaled()]) if charted else model


@pytest.mark.parametrize("charted", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 0.01, "reset_momentum_each_epoch": True, "label_smoothing": 0.1},
        {"clip_norm": 0.5, "nesterov": True, "crop_padding": 1},
        {"weight_decay": 0.1, "decay_on": "theta"},
        {"weight_decay": 0.1, "decay_on": "theta-theta0"},
    ],
)
def test_each_seed_ends_where_fit_would(dataset, quick, tmp_path, charted, changes):
    recipe = replace(quick, epochs=2, **changes)
    options = {"device": "cpu", "progress": False, "options": Options(validation=20)}
    together = fit_seeds(
        lambda seed: net_of(seed, charted), dataset, recipe, [3, 8], folder=tmp_path, **options
    )
    assert list(together) == [3, 8]
    for seed in (3, 8):
        one = net_of(seed, charted)
        alone = fit(
            one, dataset, recipe, folder=tmp_path / "alone" / str(seed), seed=seed, **options
        )
        last = load_file(tmp_path / str(seed) / "last.safetensors")
        for name, tensor in one.state_dict().items():
            torch.testing.assert_close(last[name], tensor, rtol=1e-5, atol=1e-5)
        for a, b in zip(together[seed].rows, alone.rows, strict=True):
            assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
            assert a.lr == b.lr
            for column in ("train_accuracy", "test_accuracy", "train_eval_accuracy"):
                assert a.get(column) == b.get(column)
            assert a["validation_accuracy"] == b["validation_accuracy"]
        assert together[seed].best_epoch == alone.best_epoch
        best = (tmp_path / f / str(seed) / "best.safetensors" for f in ("", "alone"))
        for a, b in zip(*(load_file(path).values() for path in best), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_finished_seed_is_not_trained_again(dataset, quick, tmp_path):
    recipe = replace(quick, epochs=1)
    rows = []
    options = {"folder": tmp_path, "progress": rows.append}
    first = fit_seeds(net_of, dataset, recipe, [0], **options)
    both = fit_seeds(net_of, dataset, recipe, [1, 0], **options)
    assert both[0] == first[0]
    assert len(rows) == 2
    net = net_of(1)
    assert fit(net, dataset, recipe, folder=tmp_path / "1", seed=1, progress=False) == both[1]
    with pytest.raises(FileExistsError, match=r"recipe\.lr"):
        fit_seeds(net_of, dataset, replace(recipe, lr=1.0), [0, 1], **options)


def test_a_seed_that_another_process_finished_meanwhile_is_not_trained_again(
    dataset, quick, tmp_path
):
    recipe, rows, other = replace(quick, epochs=1), [], {}

    def make(seed: int) -> nn.Module:
        if seed == 1:  # that of 0 was looked at before
            other.update(fit_seeds(net_of, dataset, recipe, [0], folder=tmp_path, progress=False))
        return net_of(seed)

    found = fit_seeds(make, dataset, recipe, [0, 1], folder=tmp_path, progress=rows.append)
    assert len(rows) == 1
    assert found[0] == other[0]


@pytest.mark.parametrize("option", [{"resume": False}, {"save_at": (1,)}, {"tensorboard": True}])
def test_options_of_fit_alone_are_refused(dataset, quick, tmp_path, option):
    ((name, _),) = option.items()
    with pytest.raises(ValueError, match=f"{name}="):
        fit_seeds(net_of, dataset, quick, 2, folder=tmp_path / "a", options=Options(**option))
    assert not (tmp_path / "a").exists()


def test_what_it_cannot_do_it_refuses(dataset, make_net, quick, tmp_path):
    options = {"folder": tmp_path, "progress": False}
    with pytest.raises(RuntimeError, match="random"):
        fit_seeds(make_net, dataset, quick, [0, 1], **options)  # it has dropout
    with pytest.raises(ValueError, match=r"seeds=\[0, 0\]"):
        fit_seeds(net_of, dataset, quick, [0, 0], **options)
    with pytest.raises(NonFiniteLoss, match=r"seed [01] .* epoch 1"):
        fit_seeds(net_of, dataset, replace(quick, lr=1e30), [0, 1], **options)
    assert not list(tmp_path.iterdir())
