"""Masks: theta = m * psi (Hadamard); the chart of lottery tickets and of any fixed sparsity."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.slots import plant, split_name, tensor_at


class Mask(Chart):
    """theta = m * psi for every masked tensor; dead coordinates get zero gradient.

    Args:
        values: Tensor name -> start value of psi.
        masks: Tensor name -> mask of the same shape, 0 and 1.
    """

    kind = "mask"

    def __init__(self, values: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = list(masks)
        for name, mask in masks.items():
            value = values[name]
            plant(self, name, nn.Parameter(value.detach().clone(), value.requires_grad))
            plant(self, f"{name}_mask", mask.to(value.device, torch.bool, copy=True))
        self.constants = tuple(f"{split_name(n)[1]}_mask" for n in masks)  # type: ignore[misc]

    def _pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {n: (tensor_at(self, n), tensor_at(self, f"{n}_mask")) for n in self.names}

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """Masked tensors."""
        return {name: psi * mask for name, (psi, mask) in self._pairs().items()}

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Take theta over; the residual is the norm of what the masks remove."""
        for name, (psi, _) in self._pairs().items():
            psi.copy_(theta[name])
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """Names; the masks are saved with psi."""
        return {"names": self.names}

    @classmethod
    def build(cls, net: nn.Module, *, names: list[str]) -> Self:  # type: ignore[override]
        """All-ones masks, to be loaded over."""
        tensors = dict(net.named_parameters(remove_duplicate=False))
        return cls({n: tensors[n] for n in names}, {n: torch.ones_like(tensors[n]) for n in names})

    @classmethod
    def example(cls) -> Example:
        """Half of a convolution and of a Linear masked."""
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        values = {n: p for n, p in model.named_parameters() if p.dim() > 1}
        masks = {n: torch.rand(p.shape) < 0.5 for n, p in values.items()}
        return Example(model, cls(values, masks), torch.randn(3, 2, 6, 6))
