"""The dtypes that theta is computed in."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def full_precision(psi: nn.Module) -> AbstractContextManager:
    """Autocast off on the device of `psi`, so that theta is computed in the dtype of psi."""
    tensor = next(iter(psi.parameters()), None)
    device = tensor.device.type if tensor is not None else "cpu"
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def doubled(value: Any) -> Any:
    """A floating point tensor in float64; anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
