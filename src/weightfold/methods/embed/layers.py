"""Layers that are convolutions at first and train as something larger."""

from math import prod
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.methods.embed.geometry import Geometry
from weightfold.methods.embed.strided import write

Space = Literal["dense", "local", "lowrank"]


class Embedded(nn.Module):
    """A layer between images of one size: (B, *in_shape) -> (B, *out_shape).

    Attributes:
        space: What its weights are: one of `Space`.
        geometry: Of the convolution that it is an embedding of.
    """

    space: ClassVar[Space]
    geometry: Geometry
    bias: Any

    def kernels(self) -> dict[str, Tensor]:
        """Its parameters but for the bias, by name."""
        return {name: p for name, p in self.named_parameters() if name != "bias"}

    def matrix(self) -> Tensor:
        """The matrix that it multiplies by, (output values, input values), with gradients."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Shapes, and the convolution."""
        g = self.geometry
        size, out = ("x".join(map(str, s)) for s in (g.in_shape, g.out_shape))
        parts = [f"{size} -> {out}", f"kernel_size={g.kernel_size}", f"stride={g.stride}"]
        if any(map(any, g.padding)):
            words = "" if g.padding_mode == "zeros" else f" by {g.padding_mode!r}"
            pads = tuple(a if a == b else (a, b) for a, b in g.padding)
            columns = "" if self.space == "local" else " folded" if g.folded else " kept"
            parts.append(f"padding={pads}{words}{columns}")
        parts += [f"dilation={g.dilation}"] if set(g.dilation) != {1} else []
        parts += [f"groups={g.groups}"] if g.groups > 1 else []
        weights = sum(p.numel() for p in self.parameters())
        return ", ".join([*parts, f"bias={self.bias is not None}", f"weights={weights:,}"])

    def _checked(self, x: Tensor) -> Tensor:
        g = self.geometry
        if x.shape[1:] != g.in_shape:
            raise ValueError(
                f"{type(self).__name__} was embedded for inputs of shape (B, "
                f"{', '.join(map(str, g.in_shape))}); got {tuple(x.shape)}"
            )
        return x

    def _padded(self, x: Tensor) -> Tensor:
        g = self.geometry
        if not any(map(any, g.padding)):
            return x
        pads = [side for pair in reversed(g.padding) for side in pair]
        return F.pad(x, pads, "constant" if g.padding_mode == "zeros" else g.padding_mode)

    def _flat(self, x: Tensor) -> Tensor:
        """What the matrix multiplies, (B, input values)."""
        return (x if self.geometry.folded else self._padded(x)).flatten(1)


class DenseConv(Embedded, nn.Linear):
    """Fully connected: a weight for every pair of an input and an output value, a bias for each."""

    space = "dense"
    product = staticmethod(F.linear)
    """Of input, weight and bias; an optimizer that updates in place puts its own there."""

    def __init__(self, geometry: Geometry, bias: bool) -> None:
        rows, columns = geometry.matrix_shape
        super().__init__(columns, rows, bias)
        self.geometry = geometry

    def matrix(self) -> Tensor:
        """The weight."""
        return self.weight

    def forward(self, input: Tensor) -> Tensor:
        """Flatten, multiply, shape."""
        out = self.product(self._flat(self._checked(input)), self.weight, self.bias)
        return out.unflatten(1, self.geometry.out_shape)


class LocalConv(Embedded):
    """Locally connected: a kernel and a bias for every output position.

    Attributes:
        weight: (positions, out, in / groups * kernel entries).
        bias: (out * positions,), as that of `DenseConv`.
    """

    space = "local"

    def __init__(self, geometry: Geometry, bias: bool) -> None:
        super().__init__()
        self.geometry = geometry
        self.weight = nn.Parameter(torch.empty(geometry.local_shape))
        values = prod(geometry.out_shape)
        self.register_parameter("bias", nn.Parameter(torch.empty(values)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As those of a convolution."""
        bound = self.geometry.local_shape[-1] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def matrix(self) -> Tensor:
        """The matrix."""
        return write(self.weight, self.geometry, local=True)

    def forward(self, input: Tensor) -> Tensor:
        """One product for every output position."""
        g, n = self.geometry, len(self.geometry.positions)
        x = self._padded(self._checked(input)).unflatten(1, (g.groups, -1))
        for axis in range(n):
            span = g.dilation[axis] * (g.kernel_size[axis] - 1) + 1
            x = x.unfold(3 + axis, span, g.stride[axis])
            x = x[..., :: g.dilation[axis]]
        # (B, groups, channels, *positions, *kernel) -> (positions * groups, B, entries)
        places = tuple(range(3, 3 + n))
        x = x.permute(*places, 1, 0, 2, *range(3 + n, 3 + 2 * n))
        x = x.reshape(prod(g.positions) * g.groups, input.shape[0], -1)
        weight = self.weight.view(x.shape[0], g.out_channels // g.groups, -1)
        out = torch.bmm(x, weight.mT)
        out = out.view(prod(g.positions), g.groups, input.shape[0], -1).permute(2, 1, 3, 0)
        out = out.reshape(input.shape[0], -1)
        if self.bias is not None:
            out = out + self.bias
        return out.unflatten(1, g.out_shape)


class LowRankConv(Embedded):
    """The convolution, and a matrix of low rank over all of its input and output: w * x + U V x.

    Attributes:
        kernel: (out, in / groups, *kernel).
        left: U, (output values, rank), zero at first.
        right: V, (rank, input values).
        bias: One for each filter.
    """

    space = "lowrank"

    def __init__(self, geometry: Geometry, bias: bool, rank: int) -> None:
        super().__init__()
        self.geometry, (rows, columns) = geometry, geometry.matrix_shape
        self.kernel = nn.Parameter(torch.empty(geometry.kernel_shape))
        self.left = nn.Parameter(torch.zeros(rows, rank))
        self.right = nn.Parameter(torch.empty(rank, columns))
        shape = (geometry.out_channels,)
        self.register_parameter("bias", nn.Parameter(torch.empty(shape)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The kernel as a convolution's, V as a linear layer's, U zero."""
        bound = prod(self.geometry.kernel_shape[1:]) ** -0.5
        for parameter in (self.kernel, *([] if self.bias is None else [self.bias])):
            nn.init.uniform_(parameter, -bound, bound)
        nn.init.zeros_(self.left)
        columns = self.geometry.matrix_shape[1]
        nn.init.uniform_(self.right, -(columns**-0.5), columns**-0.5)

    def matrix(self) -> Tensor:
        """The matrix."""
        return torch.addmm(write(self.kernel, self.geometry), self.left, self.right)

    def forward(self, input: Tensor) -> Tensor:
        """Convolution and the two thin products."""
        g = self.geometry
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(g.positions) - 1]
        padded = self._padded(self._checked(input))
        out = convolve(padded, self.kernel, self.bias, g.stride, 0, g.dilation, g.groups)
        low = F.linear(F.linear(self._flat(input), self.right), self.left)
        return out + low.unflatten(1, g.out_shape)


def embedded_layers(net: nn.Module) -> dict[str, Embedded]:
    """Path -> layer, of those that `embed` put there.

    Raises:
        ValueError: There is none.
    """
    layers = {path: m for path, m in net.named_modules() if isinstance(m, Embedded)}
    if not layers:
        raise ValueError(
            f"net, a {type(net).__name__}, has no embedded layers; give what wf.embed returns"
        )
    return layers
