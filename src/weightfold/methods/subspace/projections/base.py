"""What a projection is: a linear map whose constants come from a seed."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import vjp


class Projection(nn.Module):
    """A random linear map P from R^dim to R^size, size >= dim, the same on every device.

    The constants it is computed with are buffers that are not saved: `draw` makes them again from
    a seed, on the CPU, and copies them to where the buffers are. float32 values are used whatever
    the dtype, so that there is one P for all.

    Args:
        size: D, rows.
        dim: d, columns.
        like: A tensor of the device and dtype to compute in.
    """

    constants: ClassVar[tuple[str, ...]]
    """Names of the buffers."""

    def __init__(self, size: int, dim: int, like: Tensor) -> None:
        super().__init__()
        self.size, self.dim = size, dim

    def draw(self, seed: int) -> None:
        """Fill the constants from `seed`."""
        raise NotImplementedError

    def forward(self, psi: Tensor) -> Tensor:
        """P psi, (D,), of psi (d,)."""
        raise NotImplementedError

    def adjoint(self, theta: Tensor) -> Tensor:
        """The transpose of P, (d,), of theta (D,)."""
        pull = vjp(self, theta.new_zeros(self.dim))[1]
        return pull(theta)[0]

    def matrix(self) -> Tensor:
        """P as a dense tensor (D, d); for tests and small sizes."""
        identity = torch.eye(self.dim, device=self.example.device, dtype=self.example.dtype)
        return torch.stack([self(column) for column in identity], dim=1)

    @property
    def example(self) -> Tensor:
        """A floating-point buffer, for device and dtype."""
        return next(b for b in self.buffers() if b.is_floating_point())

    def constant(self, name: str, tensor: Tensor) -> None:
        """Register a buffer that is not saved."""
        self.register_buffer(name, tensor, persistent=False)


@torch.no_grad()
def least_squares(projection: Projection, target: Tensor) -> Tensor:
    """The psi (d,) for which P psi is nearest to `target` (D,): conjugate gradients on P'P.

    P'P is near the identity for every kind, so that few steps reach the last digit; d steps at
    most do in exact arithmetic.
    """
    pull = projection.adjoint
    psi = target.new_zeros(projection.dim)
    residual = pull(target)
    direction, norm = residual.clone(), residual.square().sum()
    enough = norm * torch.finfo(target.dtype).eps ** 2
    for _ in range(2 * projection.dim):
        if norm <= enough:
            break
        image = pull(projection(direction))
        step = norm / (direction @ image)
        psi += step * direction
        residual -= step * image
        previous, norm = norm, residual.square().sum()
        direction = residual + norm / previous * direction
    return psi
