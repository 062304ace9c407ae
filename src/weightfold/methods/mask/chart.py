"""Masks: theta = m * psi (Hadamard); the charts of lottery tickets and of any fixed sparsity.

`Mask` keeps a coordinate for every weight, `Live` only for those that the mask keeps.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.slots import register_at, split_name, tensor_at


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
            mask = mask.to(value.device, torch.bool, copy=True)
            psi = _without_infinite(value.detach(), mask).contiguous()
            register_at(self, name, nn.Parameter(psi, value.requires_grad))
            register_at(self, f"{name}_mask", mask)
        self.constants = tuple(f"{split_name(n)[1]}_mask" for n in masks)  # type: ignore[misc]

    def _pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {n: (tensor_at(self, n), tensor_at(self, f"{n}_mask")) for n in self.names}

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """Masked tensors."""
        return {name: psi * mask for name, (psi, mask) in self._pairs().items()}

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Take theta over; the residual is the norm of what the masks remove."""
        for name, (psi, mask) in self._pairs().items():
            psi.copy_(_without_infinite(theta[name], mask))
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


def _without_infinite(value: Tensor, mask: Tensor) -> Tensor:
    """A copy in which dead weights that are not finite are 0: a product with 0 would be NaN."""
    return torch.where(mask | value.isfinite(), value, 0)


class Live(Chart):
    """theta = psi at the live places, 0 elsewhere; psi is one vector over all masked tensors.

    Dead weights then have no gradient, no optimizer state, no decay and no place in a file. Two
    masks of equally many live weights give charts of equal shapes, which train as one vmapped
    batch.

    Args:
        values: Tensor name -> start value; dead entries are dropped.
        masks: Tensor name -> mask of the same shape, 0 and 1, at least one of them 1.

    Raises:
        ValueError: No weight is live, or the tensors are of several dtypes or devices.
    """

    kind = "live"
    constants = ("places",)
    places: Tensor

    def __init__(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        if len(dtypes := {values[name].dtype for name in masks}) > 1:
            raise ValueError(f"the tensors are of the dtypes {dtypes}; mask those of one at a time")
        if len(devices := {values[name].device for name in masks}) > 1:
            raise ValueError(f"the tensors lie on {devices}; move them to one device")
        flat = torch.cat([values[name].detach().flatten() for name in masks])
        counted = "cpu" if flat.is_meta else flat.device
        kept = torch.cat([mask.to(counted, torch.bool).flatten() for mask in masks.values()])
        if not kept.any():
            raise ValueError("masks keep no weight; keep at least one")
        places = kept.nonzero()[:, 0].to(flat.device)
        self.psi = nn.Parameter(flat[places])
        self.register_buffer("places", places.int())

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """The masked tensors."""
        sizes = [prod(shape) for shape in self.shapes.values()]
        parts = self.psi.new_zeros(sum(sizes)).scatter(0, self.places.long(), self.psi).split(sizes)
        return {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Take the live weights over; the residual is the norm of what the masks remove."""
        flat = torch.cat([theta[name].flatten() for name in self.shapes])
        self.psi.copy_(flat[self.places.long()])
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """Names and number of live weights; the places are saved with psi."""
        return {"names": list(self.shapes), "live": self.places.numel()}

    @classmethod
    def build(cls, net: nn.Module, *, names: list[str], live: int) -> Self:  # type: ignore[override]
        """The first `live` weights, to be loaded over."""
        tensors = dict(net.named_parameters(remove_duplicate=False))
        values = {name: tensors[name] for name in names}
        sizes = [value.numel() for value in values.values()]
        kept = (torch.arange(sum(sizes), device="cpu") < live).split(sizes)
        masks = {n: m.view(values[n].shape) for n, m in zip(names, kept, strict=True)}
        return cls(values, masks)

    @classmethod
    def example(cls) -> Example:
        """Half of a convolution and of a Linear live."""
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        values = {n: p for n, p in model.named_parameters() if p.dim() > 1}
        masks = {n: torch.randperm(p.numel()).view(p.shape) % 2 == 0 for n, p in values.items()}
        return Example(model, cls(values, masks), torch.randn(3, 2, 6, 6))
