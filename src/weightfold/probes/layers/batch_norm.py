"""What becomes of batch norm's running statistics when layers before it change."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from weightfold.data import Dataset

Policy = Literal["keep", "source", "recalibrate"]
"""See `splice`."""

EXPLAINED: dict[str, str] = {
    "keep": "running statistics stay those of the trained network",
    "source": "running statistics go with the layer that is set back",
    "recalibrate": "all running statistics are estimated anew on training data",
}
"""Policy -> what it does, in the words of figures and pages."""

BATCH = 500
"""Examples run at once, about; on a CPU 1000 take longer, for the pages that they ask for."""


def check_policy(bn: str) -> None:
    """Refuse an unknown policy.

    Raises:
        ValueError: `bn` is none.
    """
    if bn not in get_args(Policy):
        raise ValueError(
            f"bn={bn!r}: give 'keep', 'source' or 'recalibrate'; what becomes of batch norm's "
            "running statistics decides the outcome"
        )


def running_statistics(net: nn.Module) -> dict[str, tuple[str, ...]]:
    """Path of each batch norm that keeps running statistics -> names of these buffers."""
    return {
        path: tuple(f"{path}.{name}" if path else name for name in module._buffers)
        for path, module in net.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def recalibrate(net: nn.Module, samples: Dataset) -> None:
    """Estimate the running statistics of all batch norms anew, in place.

    One pass over the training set in train mode, in batches of about `BATCH` in a fixed random
    order, their statistics averaged with equal weight: torch's `update_bn`. Everything but batch
    norm is in eval mode meanwhile, so that no dropout changes what is measured.

    Args:
        net: On the device of `samples`; its modes are left as found.
        samples: The examples, normalised by `inputs`.
    """
    modes = {module: module.training for module in net.modules()}
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    batches = (x.to(dtype) for x in _batches(samples))
    update_bn(batches, _BatchNormsOnly(net.eval()))
    for module, training in modes.items():
        module.training = training


def _batches(samples: Dataset) -> Iterator[Tensor]:
    x = samples.train.inputs
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    for piece in order.tensor_split(-(-len(x) // BATCH)):
        yield samples.normalize(x[piece])


class _BatchNormsOnly(nn.Module):
    """A network whose `train` switches its batch norms alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def train(self, mode: bool = True) -> "_BatchNormsOnly":
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.training = mode
        return self
