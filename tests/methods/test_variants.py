"""Variants by their specs: which layers they take."""

import pytest
import torch

from weightfold.lab.variants import make_net, shape_of
from weightfold.nets import build

UNET, YOLO = "unet,width=2,depth=2,batch_norm=true", "yolo_lite,width=2"


def made(model: str, variant: str):
    return make_net(model, variant, seed=0, num_classes=4, image_shape=(3, 32, 32))


@pytest.mark.parametrize("kind", ["cl,rate=2", "doconv"])
@pytest.mark.parametrize(
    ("model", "where", "layers"),
    [
        (UNET, "down*", [f"down{i}.conv{j}" for i in (1, 2, 3) for j in (1, 2)]),
        (UNET, "down1.conv2+up1.*2", ["down1.conv2", "up1.conv2"]),
        (YOLO, "backbone.*", [f"backbone.conv{i}" for i in range(1, 6)]),
        (YOLO, "backbone.conv[2-5]", [f"backbone.conv{i}" for i in range(2, 6)]),
    ],
)
def test_where_chooses_layers_and_the_rest_is_plain(kind, model, where, layers):
    net, plain = made(model, f"{kind},where={where}"), build(model, num_classes=4)
    kept = {name.removeprefix("model.") for name, _ in net.named_parameters()}
    convolutions = {n for n, m in plain.named_modules() if isinstance(m, torch.nn.Conv2d)}
    taken = {n for n in convolutions if f"{n}.weight" not in kept}
    deployed = net.deploy()
    assert str(deployed) == str(plain)
    assert {k: v.shape for k, v in deployed.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    if kind != "doconv":  # whose first factor has the kernel's place
        assert taken == set(layers)
    assert net.verify(torch.randn(1, 3, 32, 32)).worst < 1e-10
    shapes = made(model, shape_of(f"{kind},where={where}")).state_dict()
    assert {k: v.shape for k, v in shapes.items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


def test_transposed_convolutions_pass_through_unless_they_are_named():
    kept = dict(made(UNET, "cl,rate=2").named_parameters())
    assert {"model.up1.grow.weight", "model.up2.grow.weight"} <= kept.keys()
    with pytest.raises(ValueError, match=r"variant='cl,rate=2,where=up1\.\*'.*up1\.grow"):
        made(UNET, "cl,rate=2,where=up1.*")


def test_a_where_that_matches_nothing_is_named_with_the_variant():
    with pytest.raises(ValueError, match=r"variant='cl,where=dwon\*'.*where='dwon\*'"):
        made(UNET, "cl,where=dwon*")
