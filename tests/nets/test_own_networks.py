"""Parameter counts of the ExpandNets and MobileNet papers, and the shapes of the networks."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from weightfold.nets import build


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("spec", "classes", "count"),
    [
        ("smallnet_a", 10, 66_186),  # Table 9: 66.19K, 72.04K
        ("smallnet_a", 100, 72_036),
        ("smallnet_a,kernel_size=3", 10, 15_050),
        ("smallnet_b", 10, 150_346),  # Table 6: 150.35K
        ("smallnet_b,kernel_size=3", 10, 41_866),
        ("smallnet_b,kernel_size=5", 10, 85_258),
        ("smallnet_b,kernel_size=9", 10, 237_130),
        ("mobilenet_v1", 1000, 4_231_976),
        ("mobilenet_v1,small_image=true", 1000, 4_231_976),
    ],
)
def test_published_parameter_counts(spec: str, classes: int, count: int):
    assert parameters(build(spec, num_classes=classes)) == count


def test_digitnet_has_the_count_of_its_docstring():
    net = build("digitnet", num_classes=10, in_channels=1)
    # Convolutions 4*25+4 and 8*4*25+8, batch norms 2*4 and 2*8, linear 32*16+16 and 16*10+10.
    assert parameters(net) == 104 + 808 + 8 + 16 + 528 + 170 == 1634
    assert f"{parameters(net):,} parameters" in type(net).__doc__


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("digitnet", 8),
        ("mobilenet_v1,small_image=true", 32),
        *((f"smallnet_{net},kernel_size={k}", 32) for net in "ab" for k in (1, 3, 5, 7, 9)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_the_right_shape(spec: str, size: int, channels: int):
    net = build(spec, num_classes=7, in_channels=channels)
    assert net(torch.randn(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("spec", "convolutions"),
    [
        # (input, output channels, padding) of each convolution, from the facts on the two nets.
        ("smallnet_a,kernel_size=3", [(3, 8, 0), (8, 16, 0), (16, 32, 0)]),
        ("smallnet_a", [(3, 8, 3), (8, 16, 3), (16, 32, 3)]),
        ("smallnet_b,kernel_size=9", [(3, 8, 4), (8, 16, 4), (16, 32, 4), (32, 64, 4)]),
    ],
)
def test_smallnet_layers_have_the_paper_s_names_and_sizes(spec: str, convolutions: list):
    net = build(spec, num_classes=10)
    count = len(convolutions)
    names = [name for i in range(1, count + 1) for name in (f"conv{i}", f"bn{i}")]
    assert [name for name, _ in net.named_children()] == [*names, "fc1", "fc2"]
    for i, (inputs, outputs, padding) in enumerate(convolutions, start=1):
        layer = net.get_submodule(f"conv{i}")
        assert (layer.in_channels, layer.out_channels) == (inputs, outputs)
        assert layer.padding == (padding, padding)
        assert layer.bias is not None
    assert (net.fc1.out_features, net.fc2.in_features) == (64, 64)


@pytest.mark.parametrize("spec", ["smallnet_a,kernel_size=3", "smallnet_b", "digitnet"])
def test_small_networks_compute_what_a_plain_sequence_of_layers_does(spec: str):
    torch.manual_seed(0)
    net = build(spec, num_classes=10).double()
    layers: list[nn.Module] = []
    for name, module in net.named_children():
        if name == "fc1":
            layers.append(nn.Flatten())
        layers.append(module)
        layers += [nn.ReLU(), nn.MaxPool2d(2)] if name.startswith("bn") else []
        layers += [nn.ReLU()] if name == "fc1" else []
    size = 8 if spec == "digitnet" else 32
    x = torch.randn(3, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(net(x), nn.Sequential(*layers)(x), rtol=1e-12, atol=1e-12)


def test_mobilenet_v1_costs_the_published_569_million_multiply_adds():
    net = build("mobilenet_v1", num_classes=1000).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2 / 1e6) == 569


@pytest.mark.parametrize(("spec", "side"), [("", 1), (",small_image=true", 2)])
def test_mobilenet_v1_keeps_the_documented_map_of_32_x_32(spec: str, side: int):
    net = build("mobilenet_v1" + spec, num_classes=10).eval()
    assert net.features(torch.zeros(1, 3, 32, 32)).shape == (1, 1024, side, side)


@pytest.mark.parametrize("net", ["smallnet_a", "smallnet_b"])
@pytest.mark.parametrize("kernel_size", [0, 4, -3])
def test_kernels_that_are_not_odd_are_refused(net: str, kernel_size: int):
    with pytest.raises(ValueError, match=f"kernel_size={kernel_size} must be odd"):
        build(f"{net},kernel_size={kernel_size}", num_classes=10)


@pytest.mark.parametrize(
    ("net", "takes"), [("smallnet_a", 32), ("smallnet_b", 32), ("digitnet", 8)]
)
def test_images_of_another_size_are_refused(net: str, takes: int):
    with pytest.raises(ValueError, match=f"28.*this network takes {takes} x {takes}"):
        build(net, num_classes=10)(torch.zeros(1, 3, 28, 28))
