"""Networks of the papers that the probes reproduce: published counts, layers, initial weights."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import fx, nn
from torch.func import functional_call, stack_module_state, vmap

from weightfold.nets import build

SIZES = {"mlp": 28, "lenet": 28, "lenet_300_100": 28, "small_alexnet": 28}
SPECS = (
    *("mlp", "mlp,depth=0", "lenet", "lenet_300_100", "small_alexnet", "small_inception"),
    *(f"conv{n},width=0.1" for n in (2, 4, 6)),
    *("vgg_narrow,width=2", "vgg_narrow,width=2,depth=16,batch_norm=false"),
    "resnet_narrow,width=4,depth=8",
)


def size_of(spec: str) -> int:
    return SIZES.get(spec.partition(",")[0], 32)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("spec", "channels", "count"),
    [
        # Li et al. 2018, Table 1.
        ("mlp", 1, 199_210),
        ("mlp,depth=5,width=400", 1, 959_610),
        ("mlp,size=32", 3, 656_810),
        ("lenet", 1, 44_426),
        ("lenet,size=32", 3, 62_006),
        # Zhang et al. 2017, Table 1; the last is fitting-random-labels'.
        ("mlp,depth=1,width=512", 3, 1_209_866),
        ("mlp,depth=3,width=512", 3, 1_735_178),
        ("small_alexnet", 3, 1_387_786),
        ("small_inception", 3, 1_649_402),
        ("mlp,depth=1,width=512,bias=false,size=32", 3, 1_577_984),
        # Frankle and Carbin 2019, Figure 2: 266K, 4.3M, 2.4M (Conv-6: its list of layers).
        ("lenet_300_100", 1, 266_610),
        ("conv2", 3, 4_301_642),
        ("conv4", 3, 2_425_930),
        ("conv6", 3, 2_262_602),
        # ResNet-20 with the paper's 269,722 and two 1 x 1 shortcuts with batch norm.
        ("resnet_narrow,width=16", 3, 269_722 + (16 * 32 + 64) + (32 * 64 + 128)),
    ],
)
def test_published_parameter_counts(spec: str, channels: int, count: int):
    with torch.device("meta"):
        net = build(spec, num_classes=10, in_channels=channels)
    assert parameters(net) == count


@pytest.mark.parametrize(
    ("spec", "count"), [("conv2", 38_720), ("conv4", 260_160), ("conv6", 1_145_408)]
)
def test_parameters_in_the_convolutions_of_conv_n(spec: str, count: int):
    with torch.device("meta"):
        net = build(spec, num_classes=10)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert sum(parameters(m) for m in convolutions) == count
    assert len(convolutions) == int(spec[-1])


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_vgg_has_torchvision_s_convolutions(depth: int, batch_norm: bool):
    with torch.device("meta"):
        ours = build(
            f"vgg_narrow,depth={depth},width=64,batch_norm={batch_norm}".lower(), num_classes=10
        )
        theirs = torchvision.models.get_model(f"vgg{depth}" + "_bn" * batch_norm).features
    shapes = [
        [m.weight.shape for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        for net in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    assert parameters(ours.fc) == 5130


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spec", SPECS)
def test_logits_alone_traced_and_side_by_side(spec: str, channels: int):
    nets = [build(spec, num_classes=7, in_channels=channels).eval() for _ in range(2)]
    x = torch.randn(2, channels, size_of(spec), size_of(spec))
    with torch.no_grad():
        expected = torch.stack([net(x) for net in nets])
        weights, buffers = stack_module_state(nets)
        one = copy.deepcopy(nets[0])
        together = vmap(lambda w, b: functional_call(one, (w, b), (x,)))(weights, buffers)
    assert expected.shape == (2, 2, 7)
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fx.symbolic_trace(nets[0])(x), expected[0])


@pytest.mark.parametrize("spec", SPECS)
def test_every_parameter_belongs_to_a_layer_that_draws_it_anew(spec: str):
    net = build(spec, num_classes=10)
    first = {name: p.detach().clone() for name, p in net.named_parameters()}
    for module in net.modules():
        if list(module.parameters(recurse=False)):
            module.reset_parameters()
    for name, p in net.named_parameters():
        # The same law of chance: of n values each spread is off by 1 / sqrt(2 n), the ratio of two
        # by 1 / sqrt(n).
        if p.dim() > 1:
            assert not torch.equal(p, first[name])
            ratio = (p.std() / first[name].std()).item()
            assert abs(ratio - 1) < 6 / math.sqrt(p.numel())


@pytest.mark.parametrize("spec", ["lenet_300_100", "conv2,width=0.5"])
def test_weights_of_the_lottery_paper_are_glorot_normal(spec: str):
    torch.manual_seed(0)
    net = build(spec, num_classes=10)
    for layer in net.children():
        assert not layer.bias.any()
        fans = layer.weight[0].numel() + layer.weight.numel() // layer.weight.shape[1]
        z = (layer.weight * math.sqrt(fans / 2)).flatten()
        n = len(z)
        # Mean, variance and fourth moment of n standard normal values, within 5 of their spreads.
        assert abs(z.mean()) < 5 / math.sqrt(n)
        assert abs(z.square().mean() - 1) < 5 * math.sqrt(2 / n)
        assert abs(z.pow(4).mean() - 3) < 5 * math.sqrt(96 / n)


@pytest.mark.parametrize(
    ("spec", "channels", "pooled"),
    [
        ("mlp", 1, ()),
        ("mlp,bias=false", 1, ()),
        ("lenet", 1, ("conv1", "conv2")),
        ("lenet_300_100", 1, ()),
        ("conv4,width=0.1", 3, ("conv2", "conv4")),
    ],
)
def test_small_networks_compute_what_a_plain_sequence_of_layers_does(
    spec: str, channels: int, pooled: tuple
):
    net = build(spec, num_classes=10, in_channels=channels).double()
    layers: list[nn.Module] = []
    for name, module in net.named_children():
        layers += [nn.Flatten()] if name == "fc1" else []
        layers += [module, nn.ReLU()] if name.startswith(("conv", "fc")) else []
        layers += [nn.MaxPool2d(2)] if name in pooled else []
    x = torch.randn(3, channels, size_of(spec), size_of(spec), dtype=torch.float64)
    torch.testing.assert_close(net(x), nn.Sequential(*layers[:-1])(x), rtol=1e-12, atol=1e-12)


def test_dropout_of_the_hidden_units_in_training_only():
    net = build("mlp,depth=1,width=4000,dropout=0.25", num_classes=10, in_channels=1)
    seen = []
    net.fc2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(1, 1, 28, 28)
    with torch.no_grad():
        net(x)
        net.eval()(x)
    plain = F.relu(net.fc1(x.flatten(1)))
    torch.testing.assert_close(seen[1], plain)
    kept = seen[0] != 0
    torch.testing.assert_close(seen[0][kept], plain[kept] / 0.75)
    alive = int((plain > 0).sum())
    spread = math.sqrt(alive * 0.75 * 0.25)
    assert abs(int(kept.sum()) - 0.75 * alive) < 5 * spread


def test_small_inception_s_blocks_and_maps():
    net = build("small_inception", num_classes=10).eval()
    shapes = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _, __, y, name=name: shapes.update({name: y.shape[1:]}))
    with torch.no_grad():
        net(torch.zeros(1, 3, 28, 28))
    # Figure 3 of the paper: widths are the sums of the branches, the image is halved twice.
    assert shapes["stem"] == (96, 28, 28)
    assert [shapes[f"stage1.{i}"] for i in range(3)] == [(64, 28, 28), (80, 28, 28), (160, 14, 14)]
    assert [shapes[f"stage2.{i}"] for i in range(3)] == [(160, 14, 14)] * 3
    assert [shapes[f"stage2.{i}"] for i in (3, 4)] == [(144, 14, 14), (240, 7, 7)]
    assert [shapes[f"stage3.{i}"] for i in range(2)] == [(336, 7, 7)] * 2


def test_small_inception_s_batch_norms_shift_and_do_not_scale():
    net = build("small_inception", num_classes=10)
    trained = {name.rpartition(".")[2] for name, _ in net.stem.norm.named_parameters()}
    assert trained == {"bias"}
    assert torch.equal(net.stem.norm.weight, torch.ones(96))
    y = net.stem.norm(torch.randn(4, 96, 5, 5) * 3 + 2)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(96), rtol=1e-3, atol=0)


def test_deep_vgg_without_batch_norm_keeps_its_signal():
    torch.manual_seed(0)
    net = build("vgg_narrow,depth=19,batch_norm=false", num_classes=10).eval()
    with torch.no_grad():
        features = net.stage4(net.stage3(net.stage2(net.stage1(torch.randn(4, 3, 32, 32)))))
    assert 0.1 < features.square().mean().sqrt() < 10


@pytest.mark.parametrize("depth", [8, 20, 32])
def test_resnet_s_layers_are_counted_in_its_depth(depth: int):
    net = build(f"resnet_narrow,depth={depth}", num_classes=10)
    layers = [
        name
        for name, m in net.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]
    assert len(layers) == depth
    strides = [net.get_submodule(f"layer{i}.0.conv1").stride[0] for i in (1, 2, 3)]
    assert strides == [1, 2, 2]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mlp,depth=-1", "depth=-1 must be at least 0"),
        ("mlp,width=0", "width=0 must be at least 1"),
        ("mlp,dropout=1.0", "dropout=1.0 must be at least 0 and below 1"),
        ("lenet,size=15", "size=15 must be at least 16"),
        ("conv2,width=0", "width=0.0 must be above 0"),
        ("conv6,size=7", "size=7 must be at least 8"),
        ("vgg_narrow,depth=12", "depth=12 must be one of 11, 13, 16, 19"),
        ("vgg_narrow,width=0", "width=0 must be at least 1"),
        ("resnet_narrow,depth=18", "depth=18 must be 8, 14, 20"),
        ("resnet_narrow,depth=2", "depth=2 must be 8, 14, 20"),
        ("resnet_narrow,width=0", "width=0 must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(spec: str, says: str):
    with pytest.raises(ValueError, match=says):
        build(spec, num_classes=10)


@pytest.mark.parametrize("spec", ["mlp", "lenet", "lenet_300_100", "conv2,width=0.1"])
def test_images_of_another_size_are_refused(spec: str):
    size = size_of(spec)
    with pytest.raises(ValueError, match=f"30.*this network takes {size} x {size}"):
        build(spec, num_classes=10)(torch.zeros(1, 3, 30, 30))
