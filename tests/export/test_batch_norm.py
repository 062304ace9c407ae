import torch
from torch import nn

from weightfold.export.batch_norm import fold_batch_norms


class Awkward(nn.Module):
    """Every way in which a batch norm can stand."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(3, eps=0.1)
        self.shared = nn.Conv2d(3, 4, 3, bias=False)
        self.first = nn.BatchNorm2d(4)
        self.second = nn.BatchNorm2d(4, affine=False, eps=1e-2)
        self.read_twice = nn.Conv2d(4, 4, 1)
        self.beside = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 8, 3, stride=2, groups=2, padding=1, dilation=2)
        self.after_grouped = nn.BatchNorm2d(8)
        self.transposed = nn.ConvTranspose2d(8, 6, 2, groups=2)
        self.after_transposed = nn.BatchNorm2d(6)
        self.conv1d = nn.Conv1d(6, 5, 3)
        self.after_conv1d = nn.BatchNorm1d(5)
        self.linear = nn.Linear(5, 7)
        self.after_linear = nn.BatchNorm1d(7)

    def forward(self, x):
        x = self.before(x)
        x = self.first(self.shared(x)) * self.second(self.shared(x))
        x = self.read_twice(x)
        x = self.beside(x) + x
        x = self.after_transposed(self.transposed(self.after_grouped(self.grouped(x))))
        x = self.after_conv1d(self.conv1d(x.flatten(2)))
        return self.after_linear(self.linear(x.mean(2)))


def test_the_fold_changes_nothing_in_float64():
    generator = torch.Generator().manual_seed(0)
    net = Awkward().double().eval()
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3 * ("var" not in name))
    x = torch.randn(3, 3, 9, 9, generator=generator, dtype=torch.float64)
    graph = torch.export.export(net, (x,), strict=True).module()
    fold_batch_norms(graph)
    with torch.no_grad():
        expected, folded = net(x), graph(x)
    assert (expected - folded).abs().max() <= 1e-12 * expected.abs().max()
    targets = [str(node.target) for node in graph.graph.nodes]
    assert not [t for t in targets if "batch_norm" in t and "folded" not in t]
    # Folded: both uses of the shared one, the grouped one and the one-dimensional one.
    assert sum("mul.Tensor" in t for t in targets) == 4 + 1
    assert not [name for name, _ in graph.named_buffers()]
    assert "shared.weight" not in dict(graph.named_parameters())
    assert net.shared.weight.shape == (4, 3, 3, 3)
