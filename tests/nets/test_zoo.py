"""torchvision's and timm's networks by name, and the small-image variants."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

from weightfold.nets import build
from weightfold.nets.small_image import FAMILIES
from weightfold.nets.zoo import torchvision_names

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)
needs_smp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None,
    reason="segmentation-models-pytorch is not installed",
)
# One cheap network of every family that has a small-image variant; MobileNetV3 has two shapes.
SMALL = {
    "resnet18": "ResNet",
    "resnet50": "ResNet",
    "densenet121": "DenseNet",
    "squeezenet1_0": "SqueezeNet",
    "squeezenet1_1": "SqueezeNet",
    "shufflenet_v2_x0_5": "ShuffleNetV2",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3",
    "mobilenet_v3_large": "MobileNetV3",
    "efficientnet_b0": "EfficientNet",
    "efficientnet_v2_s": "EfficientNet",
    "mnasnet0_5": "MNASNet",
    "regnet_x_400mf": "RegNet",
    "regnet_y_400mf": "RegNet",
}


def halvings(net: nn.Module) -> int:
    """log2 of the total stride, seen from the maps of a 128 x 128 image."""
    sides = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            module.register_forward_hook(lambda _, args, output: sides.append(output.shape[-1]))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 128, 128))
    smallest = min(side for side in sides if side > 1)  # 1: squeeze-and-excitation
    return round(torch.log2(torch.tensor(128 / smallest)).item())


def test_every_family_is_tried():
    assert set(SMALL.values()) == set(FAMILIES)


@pytest.mark.parametrize("name", SMALL)
def test_small_images_keep_four_times_the_map(name: str):
    plain = build(name, num_classes=10)
    small = build(f"{name},small_image=true", num_classes=10)
    assert type(plain).__name__ == type(small).__name__ == SMALL[name]
    expected = 4 if name.startswith("squeezenet") else 5
    assert (halvings(plain), halvings(small)) == (expected, expected - 2)
    first = []
    stem = next(m for m in small.modules() if isinstance(m, nn.Conv2d))
    stem.register_forward_hook(lambda _, args, output: first.append(output.shape[-1]))
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert first == [32]
    assert stem.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("resnet18,small_image=true", 11_173_962),  # the CIFAR ResNet-18 in common use
        ("mobilenet_v2", 2_236_682),
        ("mobilenet_v2,small_image=true", 2_236_682),
    ],
)
def test_known_parameter_counts(spec: str, count: int):
    assert sum(p.numel() for p in build(spec, num_classes=10).parameters()) == count


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0"])
def test_a_renewed_stem_starts_with_the_spread_of_the_family_s_initialisation(name: str):
    torch.manual_seed(0)
    stem = next(
        m
        for m in build(f"{name},small_image=true", num_classes=10).modules()
        if isinstance(m, nn.Conv2d)
    )
    fan = 9 * (64 if name == "resnet18" else 3)  # by outputs in ResNet, by inputs in SqueezeNet
    assert stem.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1)


@pytest.mark.parametrize("spec", ["alexnet", "vgg11", "vit_b_32,image_size=32"])
def test_families_without_a_variant_name_those_that_have_one(spec: str):
    name, *options = spec.split(",")
    with pytest.raises(ValueError, match=r"small_image=true is not known.*ResNet.*RegNet"):
        build(",".join([name, "small_image=true", *options]), num_classes=10)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("spec", ["resnet18,small_image=true", "squeezenet1_1", "mobilenet_v2"])
def test_other_image_channels(spec: str, channels: int):
    net = build(spec, num_classes=3, in_channels=channels)
    assert net(torch.zeros(2, channels, 32, 32)).shape == (2, 3)


def test_googlenet_gives_plain_logits_while_training():
    assert build("googlenet", num_classes=3)(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_an_option_of_the_class_is_passed_on():
    half = build("mobilenet_v2,width_mult=0.5", num_classes=10)
    assert half.features[0][0].out_channels == 16


def test_an_option_that_the_name_decides_is_refused():
    with pytest.raises(ValueError, match=r"densenet121.*growth_rate"):
        build("densenet121,growth_rate=8", num_classes=10)


@pytest.mark.parametrize(
    "spec", ["resnet18,weights=DEFAULT", "resnet18,pretrained=true", "resnet18,progress=true"]
)
def test_torchvision_weights_are_never_asked_for(spec: str):
    with pytest.raises(ValueError, match="has no option"):
        build(spec, num_classes=1000)


def test_models_of_tasks_that_there_are_are_named():
    names = torchvision_names()
    assert {"resnet18", "fcn_resnet50", "ssdlite320_mobilenet_v3_large"} <= set(names)
    assert not any(key in name for name in names for key in ("keypoint", "mask", "quant", "r3d"))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_segmentation_model_gives_maps(channels: int):
    net = build("lraspp_mobilenet_v3_large", num_classes=4, in_channels=channels).eval()
    assert net(torch.zeros(1, channels, 32, 48))["out"].shape == (1, 4, 32, 48)
    aux = build("fcn_resnet50,aux_loss=true", num_classes=2)
    assert any(name.startswith("aux_classifier") for name, _ in aux.named_children())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_detector_takes_images_as_they_are(channels: int):
    net = build("ssdlite320_mobilenet_v3_large", num_classes=3, in_channels=channels)
    images = torch.randn(2, channels, 320, 320)
    seen, _ = net.transform(list(images))
    torch.testing.assert_close(seen.tensors, images)


@needs_smp
def test_smp_network():
    net = build("smp/linknet,encoder_name=resnet18", num_classes=2, in_channels=1).eval()
    assert net(torch.zeros(1, 1, 32, 64)).shape == (1, 2, 32, 64)


@needs_smp
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("smp/nothing", "'smp/nothing'.*unet"),
        ("smp/unet,encoder_name=nothing", "nothing"),
        ("smp/unet,encoder_weights=imagenet", "'encoder_weights' loads trained weights"),
    ],
)
def test_smp_errors(spec: str, says: str):
    with pytest.raises(ValueError, match=says):
        build(spec, num_classes=2)


@needs_timm
def test_timm_network():
    net = build("timm/resnet18,drop_rate=0.5", num_classes=7, in_channels=1)
    assert net.drop_rate == 0.5
    assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@needs_timm
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("timm/resnet81", "no model 'resnet81'; near: resnet"),
        ("timm/resnet18,wrong=1", "timm/resnet18.*wrong"),
        ("timm/resnet18,pretrained=true", "'pretrained' loads trained weights"),
        ("timm/resnet18,checkpoint_path=x", "'checkpoint_path' loads trained weights"),
        ("timm/hf-hub:someone/net", "no model"),
    ],
)
def test_timm_mistakes(spec: str, says: str):
    with pytest.raises(ValueError, match=says):
        build(spec, num_classes=7)


def test_timm_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'weightfold\[zoo\]'"):
        build("timm/resnet18", num_classes=10)
