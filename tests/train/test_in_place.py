"""Updates in the backward pass, and rates of their own for some parameters."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import weightfold as wf

RECIPE = wf.Recipe(epochs=2, batch_size=8, lr=0.1, momentum=0, schedule="step", milestones=(1,),
                   crop_padding=0, flip=False)  # fmt: skip
X = torch.randn(24, 2, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3


def network():
    torch.manual_seed(0)
    return wf.embed(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(),
            nn.Conv2d(3, 2, 3, bias=False), nn.Flatten(), nn.Linear(32, 3),
        ),
        (2, 6, 6),
    )  # fmt: skip


def trained(net, recipe=RECIPE, **options):
    wf.fit(net, ((X, Y), (X, Y)), recipe, progress=False, device="cpu",
           options=wf.Options(**options))  # fmt: skip
    return net.state_dict()


def test_in_place_is_plain_sgd_and_leaves_the_network_as_it_was():
    net, other = network(), network()
    factors = {"0.weight": 3.0, "5.bias": 0.5}
    found, expected = (
        trained(net, in_place=True, lr_factors=factors),
        trained(other, lr_factors=factors),
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    assert all(p.grad is None for p in net.parameters())
    assert "product" not in vars(net[0])
    net(X).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert torch.equal(net[0].weight, found["0.weight"])


def test_in_place_keeps_no_gradient_of_a_matrix(monkeypatch):
    seen = []
    accumulated = torch.Tensor.register_post_accumulate_grad_hook

    def note(tensor, hook):
        def called(p):
            if p.grad is not None:
                seen.append(tuple(p.shape))
            hook(p)

        return accumulated(tensor, called)

    monkeypatch.setattr(torch.Tensor, "register_post_accumulate_grad_hook", note)
    net = network()
    trained(net, in_place=True)
    assert tuple(net[0].weight.shape) not in seen and tuple(net[5].weight.shape) in seen


def test_a_factor_is_the_rate_of_its_parameter():
    net, start = network(), network().state_dict()
    once = replace(RECIPE, epochs=1, batch_size=24, schedule="constant", milestones=())
    plain, faster = trained(network(), once), trained(net, once, lr_factors={"3.weight": 4.0})
    for name in ("0.weight", "3.weight"):
        ratio = (faster[name] - start[name]).norm() / (plain[name] - start[name]).norm()
        assert ratio.item() == pytest.approx(4.0 if name == "3.weight" else 1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (replace(RECIPE, momentum=0.9), {"in_place": True}, "in_place=True.*momentum"),
        (replace(RECIPE, weight_decay=0.1), {"in_place": True}, "in_place=True.*weight_decay"),
        (replace(RECIPE, clip_norm=1.0), {"in_place": True}, "in_place=True.*clip_norm"),
        (replace(RECIPE, optimizer="adamw"), {"in_place": True}, "in_place=True.*sgd"),
        (RECIPE, {"lr_factors": {"9.weight": 2.0}}, "lr_factors has '9.weight'"),
        (RECIPE, {"lr_factors": {"0.weight": 0.0}}, r"lr_factors\['0.weight'\]"),
        (RECIPE, {"in_place": True, "precision": "bf16-mixed"}, "in_place=True.*precision"),
    ],
)
def test_what_is_refused(recipe, options, message):
    with pytest.raises(ValueError, match=message):
        trained(network(), recipe, **options)


def test_several_runs_have_none_of_it():
    runs = {"a": wf.train.Run(network(), ((X, Y), (X, Y)), 0)}
    with pytest.raises(ValueError, match="in_place=True"):
        wf.fit_together(runs, RECIPE, options=wf.Options(in_place=True))


def test_a_run_starts_from_a_convolutional_one_through_embed(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Conv2d(3, 2, 3, bias=False), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    wf.fit(model, ((X, Y), (X, Y)), RECIPE, progress=False, device="cpu", folder=tmp_path / "cnn",
           options=wf.Options(save_at=(2, 6)))  # fmt: skip
    net = network()
    start = wf.Start(tmp_path / "cnn", at=6, through="embed")
    history = wf.fit(
        net, ((X, Y), (X, Y)), replace(RECIPE, lr=1e-9), progress=False, device="cpu",
        options=wf.Options(start=start, at_start=True),
    )  # fmt: skip
    torch.testing.assert_close(net.train()(X), model.train()(X), rtol=1e-4, atol=1e-5)
    assert wf.deviation(net) < 1e-4 and history.rows[0].step == 0
    with pytest.raises(FileNotFoundError, match="step-5"):
        wf.fit(net, ((X, Y), (X, Y)), RECIPE, progress=False,
               options=wf.Options(start=replace(start, at=5)))  # fmt: skip
