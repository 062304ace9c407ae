import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from weightfold.cli import main
from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.lab.variants import make_net
from weightfold.train import Recipe, fit
from weightfold.train.penalty import Penalty


class Product(Chart):
    """weight = left @ right, for a linear layer named "0"."""

    kind = "product-for-tests"

    def __init__(self):
        super().__init__()
        self.left = nn.Parameter(torch.randn(3, 5))
        self.right = nn.Parameter(torch.randn(5, 4))

    def forward(self, **at):
        return {"0.weight": self.left @ self.right}


def plain():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def decay(weight_decay, on):
    return Recipe(weight_decay=weight_decay, decay_on=on)


def test_decay_on_theta_of_a_plain_net_is_weight_decay():
    net = plain()
    net[0].bias.requires_grad_(False)
    Penalty(net, decay(0.05, "theta"))().backward()
    assert net[0].bias.grad is None
    for parameter in (net[0].weight, net[1].weight, net[1].bias):
        torch.testing.assert_close(parameter.grad, 0.05 * parameter.detach())


@pytest.mark.parametrize("nested", [False, True])
def test_decay_on_theta_of_a_charted_net_reaches_psi_by_the_chain_rule(nested):
    chart, model = Product(), plain()
    net = Charted(model, [chart])
    if nested:
        net = Charted(net, [])
    norm = Penalty(net, decay(2.0, "theta"))()
    deployed = dict(net.deploy().named_parameters())
    torch.testing.assert_close(norm, sum(p.square().sum() for p in deployed.values()).detach())
    norm.backward()
    left, right = chart.left.detach(), chart.right.detach()
    if nested:
        left, right = (p.detach() for p in net.parameters() if p.shape in ((3, 5), (5, 4)))
    grads = {tuple(p.shape): p.grad for p in net.parameters()}
    torch.testing.assert_close(grads[3, 5], 2 * left @ right @ right.T)
    torch.testing.assert_close(grads[5, 4], 2 * left.T @ left @ right)
    uncharted = [p for n, p in net.named_parameters() if "bias" in n or n.endswith("1.weight")]
    assert len(uncharted) == 3
    for parameter in uncharted:
        torch.testing.assert_close(parameter.grad, 2 * parameter.detach())


@pytest.mark.parametrize("charted", [False, True])
def test_decay_on_the_way_from_theta0(charted):
    net = Charted(plain(), [Product()]) if charted else plain()
    start = (
        {n: p.detach().clone() for n, p in net.deploy().named_parameters()}
        if charted
        else {n: p.detach().clone() for n, p in net.named_parameters()}
    )
    penalty = Penalty(net, decay(0.3, "theta-theta0"))
    assert penalty() == 0
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.rand_like(parameter))
    now = (net.deploy() if charted else net).named_parameters()
    expected = 0.3 / 2 * sum((p.detach() - start[n]).square().sum() for n, p in now)
    torch.testing.assert_close(penalty().detach(), expected)


def test_decay_on_theta_refuses_a_charted_net_inside_a_plain_one():
    with pytest.raises(ValueError, match="decay_on='theta'"):
        Penalty(nn.Sequential(Charted(plain(), [Product()]), nn.ReLU()), decay(0.1, "theta"))


@pytest.mark.parametrize("variant", ["cl+fc,rate=2", "ck,rate=2", "doconv"])
def test_decay_on_theta_of_a_variant_is_of_what_it_deploys_to(variant):
    given = {"seed": 0, "num_classes": 3, "image_shape": (3, 32, 32)}
    net = make_net("smallnet_a,kernel_size=5", variant, **given)
    norm = Penalty(net, decay(2.0, "theta"))()
    deployed = sum(p.square().sum() for p in net.deploy().parameters())
    torch.testing.assert_close(norm, deployed.detach())
    norm.backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_decay_on_theta_is_a_part_of_the_gradient_that_the_optimizer_scales(optimizer):
    """Of a plain net: torch's Adam with its coupled decay, and SGD with its own."""
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.arange(32) % 3
    data, nets = ((x, y), (x, y)), [nn.Linear(4, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    recipe = Recipe(
        epochs=5, batch_size=32, optimizer=optimizer, lr=0.01, weight_decay=0.3, decay_on="theta",
        schedule="constant", crop_padding=0, flip=False,
    )  # fmt: skip
    fit(nets[0], data, recipe, progress=False)
    adam = torch.optim.Adam(nets[1].parameters(), lr=0.01, weight_decay=0.3)
    sgd = torch.optim.SGD(nets[1].parameters(), lr=0.01, momentum=0.9, weight_decay=0.3)
    theirs = adam if optimizer == "adamw" else sgd
    for _ in range(5):
        theirs.zero_grad()
        nn.functional.cross_entropy(nets[1](x), y).backward()
        theirs.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_command_line_trains_an_expansion_with_decay_on_its_product(tmp_path, capsys):
    """Another run than with decay on the factors, and written so."""
    weights = []
    for decay_on in ("psi", "theta"):
        main(
            [
                *("train", "--model", "digitnet", "--data", "digits,limit=64", "--variant"),
                *("ck,rate=2", "--folder", str(tmp_path / decay_on), "--epochs", "1"),
                *("--weight-decay", "0.1", "--decay-on", decay_on, "--lr", "0.05"),
            ]
        )
        run = json.loads((tmp_path / decay_on / "run.json").read_text())
        assert run["configuration"]["recipe"]["decay_on"] == decay_on
        weights.append(load_file(tmp_path / decay_on / "last.safetensors"))
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
