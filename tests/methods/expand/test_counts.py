"""Parameters while training, as the paper's Tables 6 and 9 print them and its code has them."""

import pytest

import weightfold as wf
from weightfold.nets import build

CL, CK, FC = {"conv": "cl"}, {"conv": "ck"}, {"conv": None, "linear": "fc"}
CL_FC, CK_FC = CL | {"linear": "fc"}, CK | {"linear": "fc"}


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def expanded(spec, classes, **options):
    return parameters(wf.expand(build(spec, num_classes=classes), **options))


@pytest.mark.parametrize(
    ("rate", "cifar10", "cifar100"),
    [
        (0.25, 37_912, 43_762),
        (0.5, 42_810, 48_660),
        (0.75, 48_428, 54_278),
        (1, 54_766, 60_616),
        (2, 87_318, 93_168),
        (4, 186_982, 192_832),
    ],
)
def test_table_9(rate, cifar10, cifar100):
    """SmallNet-A, CK; the authors' code leaves the image channels unexpanded."""
    for classes, count in ((10, cifar10), (100, cifar100)):
        assert expanded("smallnet_a", classes, conv="ck", rate=rate, first="m") == count


def test_table_9_compact():
    assert parameters(build("smallnet_a", num_classes=10)) == 66_186
    assert parameters(build("smallnet_a", num_classes=100)) == 72_036


@pytest.mark.parametrize(
    ("how", "rate", "count"),
    [
        (FC, 2, 339_402),
        (FC, 4, 675_914),
        (FC, 8, 1_742_154),
        (CL, 2, 562_954),
        (CL, 4, 2_171_554),
        (CL, 8, 8_578_066),
        (CK, 2, 237_722),
        (CK, 4, 653_250),
        (CK, 8, 2_070_098),
    ],
)
def test_table_6(how, rate, count):
    """SmallNet-B with kernel 7; here the image channels are expanded."""
    assert expanded("smallnet_b,kernel_size=7", 10, rate=rate, **how) == count


def test_first_layer_exception_of_the_code_would_not_give_table_6():
    assert expanded("smallnet_b", 10, first="m") == 2_157_406
    assert expanded("smallnet_b", 10, first="m", **CK) == 650_406


@pytest.mark.parametrize(
    ("kernel_size", "how", "count"),
    [
        (7, FC, 1_624_970),
        (7, CL, 547_102),
        (7, CL_FC, 2_105_886),
        (7, CK, 186_982),
        (7, CK_FC, 1_745_766),
        (3, FC, 220_618),
        (3, CL, 109_086),
        (3, CL_FC, 314_654),
        (3, CK, 109_086),  # falls to CL
        (3, CK_FC, 314_654),
    ],
)
def test_smallnet_a_of_the_authors_code(kernel_size, how, count):
    assert expanded(f"smallnet_a,kernel_size={kernel_size}", 10, first="m", **how) == count


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("smallnet_a,kernel_size=3", 15_050),
        ("smallnet_b,kernel_size=3", 41_866),
        ("smallnet_b,kernel_size=5", 85_258),
        ("smallnet_b,kernel_size=7", 150_346),
        ("smallnet_b,kernel_size=9", 237_130),
    ],
)
def test_compact_networks(spec, count):
    assert parameters(build(spec, num_classes=10)) == count
    assert parameters(wf.expand(build(spec, num_classes=10)).deploy()) == count
