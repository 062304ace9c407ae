import pytest
import torch
from torch import nn

from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.train import Recipe
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
