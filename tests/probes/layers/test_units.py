import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from weightfold.nets.registry import build
from weightfold.probes.layers.units import layer_units, normalised


def modules(net: nn.Module, x: torch.Tensor) -> dict[str, tuple[str, ...]]:
    return {unit.name: unit.modules for unit in layer_units(net, x)}


def test_a_layer_and_the_batch_norm_of_its_output_are_one(make_net):
    units = layer_units(make_net(), torch.zeros(1, 1, 8, 8))
    assert [unit.name for unit in units] == ["conv1", "conv2", "fc"]
    assert units[0].modules == ("conv1", "bn1")
    assert set(units[0].tensors) == {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
    }
    assert [unit.parameters for unit in units] == [27 + 6, 108 + 4 + 8, 256 + 4]


@pytest.mark.parametrize("between", [nn.ReLU(inplace=True), nn.ReLU()], ids=["in place", "new"])
def test_a_norm_behind_anything_else_is_its_own(between):
    net = nn.Sequential(nn.Linear(4, 4), between, nn.BatchNorm1d(4), nn.Identity())
    assert modules(net, torch.ones(1, 4)) == {"0": ("0",), "2": ("2",)}


def test_a_norm_of_two_layers_is_its_own():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2)

        def forward(self, x):
            return self.norm(self.a(x)) + self.norm(self.b(x))

    assert modules(Shared(), torch.ones(1, 2)) == {"a": ("a",), "b": ("b",), "norm": ("norm",)}


def test_a_container_that_hands_on_its_layers_output_does_not_hide_it():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(self.scale * x)

    net = nn.Sequential(Block(), nn.BatchNorm1d(2, affine=False))
    assert modules(net, torch.ones(1, 2)) == {"0": ("0",), "0.layer": ("0.layer", "1")}


def test_parametrized_layers_own_their_originals_and_ties_the_first_layer():
    net = nn.Sequential(weight_norm(nn.Linear(2, 2, bias=False)), nn.BatchNorm1d(2))
    (unit,) = layer_units(net, torch.ones(1, 2))
    assert unit.modules == ("0", "1") and unit.parameters == 2 + 4 + 4
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    assert modules(tied, torch.ones(1, 2)) == {"0": ("0",)}


def test_a_network_that_is_one_layer():
    assert modules(nn.Linear(3, 2), torch.ones(1, 3)) == {"itself": ("",)}


@pytest.mark.parametrize("name", ["resnet_narrow,depth=8", "mobilenet_v2", "transformer"])
def test_every_weight_is_in_one_unit(name):
    if name == "transformer":
        net, x = nn.TransformerEncoderLayer(8, 2, 8), torch.zeros(1, 3, 8)
    else:
        net, x = build(name, num_classes=3), torch.zeros(1, 3, 32, 32)
    units = layer_units(net, x)
    names = [tensor for unit in units for tensor in unit.tensors]
    assert len(names) == len(set(names))
    assert set(names) >= {name for name, _ in net.named_parameters()}
    assert sum(unit.parameters for unit in units) == sum(p.numel() for p in net.parameters())


def test_resnets_norms_all_go_with_convolutions_and_the_network_is_left_alone():
    net, x = build("resnet18", num_classes=3), torch.zeros(1, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = normalised(net, x)
    assert found["layer2.0.downsample.1"] == "layer2.0.downsample.0" and len(found) == 20
    assert net.training and not net.conv1._forward_hooks
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
