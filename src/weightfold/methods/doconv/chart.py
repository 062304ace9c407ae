"""DO-Conv: theta = W (1 + D), a k*k by k*k factor for each input channel of a kernel."""

from collections.abc import Mapping
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.slots import register_at, tensor_at


class DepthwiseFactor(Chart):
    """Kernels over-parameterized by a depthwise factor on their taps, folded on the weights.

    theta[o, i, s] = W[o, i, s] + sum over r of W[o, i, r] D[i, s, r] with s, r the K taps of a
    kernel and i its input channel, counted over all groups. D starts at 0, so that theta is W.

    Args:
        values: Name of a convolution's weight (out, in / groups, *kernel) -> start value of W.
        groups: Name -> groups of the convolution.
    """

    kind = "doconv"

    def __init__(self, values: Mapping[str, nn.Parameter], groups: Mapping[str, int]) -> None:
        super().__init__()
        self.groups = dict(groups)
        for name, count in self.groups.items():
            value = values[name]
            taps = prod(value.shape[2:])
            factor = value.detach().new_zeros(count * value.shape[1], taps, taps)
            for suffix, psi in (
                ("", value.detach().clone(memory_format=torch.contiguous_format)),
                ("_factor", factor),
            ):
                register_at(self, f"{name}{suffix}", nn.Parameter(psi, value.requires_grad))

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """The folded kernels."""
        return {name: self._folded(name, groups) for name, groups in self.groups.items()}

    def _folded(self, name: str, groups: int) -> Tensor:
        weight, factor = tensor_at(self, name), tensor_at(self, f"{name}_factor")
        taps = factor.shape[1]
        split = weight.reshape(groups, -1, weight.shape[1], taps)
        factors = factor.view(groups, weight.shape[1], taps, taps)
        return weight + torch.einsum("goir,gisr->gois", split, factors).reshape(weight.shape)

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Take theta over as W, with D at 0: exact."""
        for name in self.groups:
            tensor_at(self, name).copy_(theta[name])
            tensor_at(self, f"{name}_factor").zero_()
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """Groups by name; both factors are saved."""
        return {"groups": self.groups}

    @classmethod
    def build(cls, net: nn.Module, *, groups: dict[str, int]) -> Self:  # type: ignore[override]
        """The net's kernels and factors of 0, to be loaded over."""
        tensors = dict(net.named_parameters(remove_duplicate=False))
        return cls({name: tensors[name] for name in groups}, groups)

    @classmethod
    def example(cls) -> Example:
        """A grouped convolution with a stride and a depthwise one."""
        model = nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, (1, 3), groups=6, bias=False),
        )
        values = {name: p for name, p in model.named_parameters() if p.dim() > 1}
        return Example(
            model, cls(values, {"0.weight": 2, "2.weight": 6}), torch.randn(3, 4, 8, 8), fits=True
        )
