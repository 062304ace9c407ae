import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import weightfold as wf
from weightfold.core.slots import tensor_at
from weightfold.nets import build
from weightfold.probes.path.align import check_same, permuted
from weightfold.probes.path.permutations import groups

QUIET = {"progress": False, "device": "cpu"}


class Residual(nn.Module):
    """A sum of branches, a depthwise convolution, batch norms, a flatten; and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.conv2 = nn.Conv2d(6, 4, 1)
        self.left = nn.Conv2d(4, 2, 1)
        self.right = nn.Conv2d(4, 2, 1)
        self.fc1 = nn.Linear(4 * 4, 7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.conv2(self.depthwise(F.relu(self.bn1(self.conv1(x)))))
        x = torch.cat([self.left(x), self.right(x)], dim=1)
        return self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 2).flatten(1))))


def shuffled(net, x, seed=0):
    """The same function with its channels in another order."""
    generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(net)
    with torch.no_grad():
        for group in groups(net, x):
            order = torch.randperm(group.size, generator=generator)
            for name, axis, inner in group.tensors:
                tensor = tensor_at(other, name)
                tensor.copy_(permuted(tensor, axis, inner, order))
    return other


def networks():
    torch.manual_seed(0)
    yield Residual().double().eval(), torch.randn(3, 1, 6, 6, dtype=torch.float64)
    yield (
        build("resnet_narrow,depth=8,width=4", num_classes=3, in_channels=3).double().eval(),
        torch.randn(3, 3, 32, 32, dtype=torch.float64),
    )
    yield (
        build("mlp,width=9,size=6", num_classes=3, in_channels=1).double().eval(),
        torch.randn(3, 1, 6, 6, dtype=torch.float64),
    )


@pytest.mark.parametrize(("net", "x"), networks())
def test_alignment_undoes_a_permutation(net, x):
    with torch.no_grad():
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    other = shuffled(net, x)
    assert any(
        not torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True)
    )
    torch.testing.assert_close(other(x), net(x), rtol=1e-10, atol=1e-10)
    back = wf.align(other, net, x)
    for (name, a), b in zip(net.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_channels_that_something_else_reads_stay():
    found = groups(Residual().eval(), torch.randn(2, 1, 6, 6))
    names = {name for group in found for name, _, _ in group.tensors}
    assert {"left.weight", "right.weight"} <= names  # their inputs are permuted
    outputs = {name for g in found for name, axis, _ in g.tensors if axis == 0}
    assert not outputs & {"left.weight", "right.weight", "fc2.weight"}
    assert {"stem.weight", "conv2.weight", "conv1.weight", "depthwise.weight"} <= outputs
    together = [g for g in found if ("stem.weight", 0, 1) in g.tensors]
    assert ("conv2.weight", 0, 1) in together[0].tensors


def test_a_permutation_that_changes_the_function_is_refused():
    with pytest.raises(ValueError, match="changes the function"):
        check_same(torch.ones(3, dtype=torch.float64), torch.tensor([1.0, 1.0, 1.001]).double())


class Hidden(nn.Module):
    """Reads a layer's weights elsewhere, so that its channels cannot move."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(36, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.fc2(self.fc1(x.flatten(1))) + self.fc1.weight.sum(1)[0]


def test_weights_that_are_read_elsewhere_are_noticed():
    torch.manual_seed(0)
    net, other = Hidden().double(), Hidden().double()
    x = torch.randn(4, 1, 6, 6, dtype=torch.float64)
    try:
        aligned = wf.align(net, other, x)
    except ValueError as error:
        assert "changes the function" in str(error)
    else:
        torch.testing.assert_close(aligned(x), net(x))


@pytest.mark.parametrize("kind", ["linear", "norm-preserving", "bezier", "string"])
def test_paths_begin_and_end_where_they_should(kind, samples):
    torch.manual_seed(0)
    a, b = (build("mlp,width=6,size=6,depth=1", num_classes=3, in_channels=1) for _ in range(2))
    found = wf.path(a, samples, to=b, kind=kind, points=5, steps=6, lr=0.05, pivots=2, **QUIET)
    x, y = samples.train.inputs, samples.train.targets
    for net, value in ((a, found.values["loss"][0]), (b, found.values["loss"][-1])):
        assert math.isclose(F.cross_entropy(net(x), y).item(), value, rel_tol=1e-5)
    assert found.highest >= max(found.values["loss"][0], found.values["loss"][-1])
    assert type(found).from_record(found.record()).rows() == found.rows()


def test_descent_lowers_the_path(samples):
    torch.manual_seed(0)
    a, b = (build("mlp,width=6,size=6,depth=1", num_classes=3, in_channels=1) for _ in range(2))
    means = {}
    for kind in ("linear", "bezier", "string"):
        found = wf.path(a, samples, to=b, kind=kind, points=9, steps=80, lr=0.1, **QUIET)
        means[kind] = sum(found.values["loss"])
    assert means["bezier"] < means["linear"] and means["string"] < means["linear"]


def test_aligned_ends_of_one_function_have_no_barrier(samples):
    torch.manual_seed(0)
    net = build("mlp,width=6,size=6", num_classes=3, in_channels=1).eval()
    other = shuffled(net, samples.train.inputs[:2])
    apart = wf.path(net, samples, to=other, points=5, **QUIET)
    found = wf.path(net, samples, to=other, points=5, align=True, **QUIET)
    assert apart.distance > 0.1 and found.distance == 0 and found.before == apart.distance
    assert found.barrier < 1e-6


def test_bad_input(net, samples):
    for message, options in {
        "bn=None": {"to": net},
        "kind='round'": {"to": net, "kind": "round", "bn": "keep"},
        "points=1": {"to": net, "points": 1, "bn": "keep"},
        "to is no checkpoint": {"to": {"a": torch.zeros(3)}, "bn": "keep"},
    }.items():
        with pytest.raises(ValueError, match=message):
            wf.path(net, samples, **options, **QUIET)
    with pytest.raises(ValueError, match="to=Linear has no"):
        wf.align(net, nn.Linear(3, 3), samples.train.inputs)
