"""A gain in front of each tensor: theta = g * psi."""

import torch
from torch import nn

from weightfold.core.chart import Chart, Example
from weightfold.core.slots import register_at, tensor_at


class Gain(Chart):
    """A gain in front of each tensor."""

    kind = "gain"

    def __init__(self, tensors):
        super().__init__()
        self.gains = nn.ParameterList([torch.ones_like(t.detach()[:1]) for t in tensors.values()])
        self.names = list(tensors)
        for name, tensor in tensors.items():
            register_at(self, name, nn.Parameter(tensor.detach().clone()))

    def forward(self, **at):
        return {n: g * tensor_at(self, n) for n, g in zip(self.names, self.gains, strict=True)}

    @torch.no_grad()
    def fit(self, theta, **at):
        for name, gain in zip(self.names, self.gains, strict=True):
            tensor_at(self, name).copy_(theta[name] / gain)
        return self.residuals(theta)

    def config(self):
        return {"names": self.names}

    @classmethod
    def build(cls, net, *, names):
        tensors = dict(net.named_parameters(remove_duplicate=False))
        return cls({name: tensors[name] for name in names})

    @classmethod
    def example(cls):
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        chart = cls.build(model, names=["0.weight", "3.weight"])
        return Example(model, chart, torch.randn(3, 2, 6, 6), fits=True)
