import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.lab.variants import make_net


def by_taps(weight, factor, groups):
    """The definition, tap by tap."""
    theta = weight.clone()
    outputs, inputs = weight.shape[:2]
    taps = weight[0, 0].numel()
    for o in range(outputs):
        first = (o // (outputs // groups)) * inputs  # of the input channels that o reads
        for i in range(inputs):
            for s in range(taps):
                mixed = sum(
                    weight[o, i].flatten()[r] * factor[first + i, s, r] for r in range(taps)
                )
                theta[o, i].view(-1)[s] += mixed
    return theta


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv2d(4, 4, (1, 3), groups=4, bias=False),
        nn.Conv1d(2, 3, 4, stride=2, padding=1),
        nn.Conv3d(2, 2, (2, 1, 2)),
    ],
)
def test_the_kernel_is_the_product_and_starts_as_it_was(layer):
    layer = layer.double()
    net = wf.doconv(nn.Sequential(layer))
    assert torch.equal(net.deploy()[0].weight, layer.weight)
    weight, factor = (p for p in net.charts[0].parameters())
    with torch.no_grad():
        factor.add_(torch.randn_like(factor))
    expected = by_taps(weight.detach(), factor.detach(), layer.groups)
    torch.testing.assert_close(net.deploy()[0].weight.detach(), expected, rtol=1e-12, atol=1e-12)


def test_what_is_taken():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    frozen = nn.Conv2d(2, 2, 3).requires_grad_(False)
    model = nn.Sequential(shared, nn.Conv2d(2, 2, 1), shared, frozen, nn.Conv2d(2, 2, 3))
    net = wf.doconv(model)
    assert list(net.charts[0].groups) == ["0.weight", "4.weight"]
    assert list(wf.doconv(model, where="4").charts[0].groups) == ["4.weight"]
    above = wf.doconv(wf.mask(model, {"4.weight": torch.ones(2, 2, 3, 3)}))
    assert len(above.charts[0].groups) == 2


@pytest.mark.parametrize(
    ("model", "where", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), None, "where=None"),
        (nn.Sequential(nn.Conv2d(2, 2, 1)), "0", "'0' has a kernel of 1"),
        (nn.Sequential(nn.Conv2d(2, 2, 3)), "conv*", r"where='conv\*'"),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3))),
            "0",
            "'0' has a weight that is computed",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused(model, where, message):
    with pytest.raises(ValueError, match=message):
        wf.doconv(model, where=where)


def test_as_a_variant():
    given = {"seed": 0, "num_classes": 10, "image_shape": (3, 32, 32)}
    plain = make_net("smallnet_a,kernel_size=3", "compact", **given)
    net = make_net("smallnet_a,kernel_size=3", "doconv", **given)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net.eval()(x), plain.eval()(x))
    with pytest.raises(ValueError, match="rate"):
        make_net("smallnet_a,kernel_size=3", "doconv,rate=4", **given)
