"""The linear map from kernels into matrices, by strided copies, and its adjoint."""

import json
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from weightfold.codec import decode
from weightfold.methods.embed.geometry import Block, Geometry


@torch.library.custom_op("weightfold::write_kernels", mutates_args=())
def _write(values: Tensor, geometry: str, local: bool) -> Tensor:
    """`write`, opaque to what traces operations: it fills what it makes in place."""
    known = _geometry(geometry)
    batch = values.shape[: values.dim() - _dims(known, local)]
    matrix = values.new_zeros(*batch, *known.matrix_shape)
    _fill(matrix, values, known, local)
    return matrix


@torch.library.custom_op("weightfold::read_kernels", mutates_args=())
def _read(matrix: Tensor, geometry: str, local: bool) -> Tensor:
    """`read`."""
    known = _geometry(geometry)
    matrix = matrix.contiguous()
    values = matrix.new_zeros(*matrix.shape[:-2], *_values_shape(known, local))
    for block in known.blocks:
        given = view(matrix, block)
        summed = given if local else given.sum(_over(known), keepdim=True)
        _entries(values, known, local, block, expand=False).add_(summed)
    return values


@_write.register_fake
def _(values: Tensor, geometry: str, local: bool) -> Tensor:
    known = _geometry(geometry)
    batch = values.shape[: values.dim() - _dims(known, local)]
    return values.new_empty(*batch, *known.matrix_shape)


@_read.register_fake
def _(matrix: Tensor, geometry: str, local: bool) -> Tensor:
    return matrix.new_empty(*matrix.shape[:-2], *_values_shape(_geometry(geometry), local))


def _remember(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, ctx.geometry, ctx.local = inputs


_write.register_autograd(
    lambda ctx, grad: (_read(grad, ctx.geometry, ctx.local), None, None), setup_context=_remember
)
_read.register_autograd(
    lambda ctx, grad: (_write(grad, ctx.geometry, ctx.local), None, None), setup_context=_remember
)


class _Linear(torch.autograd.Function):
    """One of the two, for forward derivatives and vmap, which such operators do not have."""

    @staticmethod
    def forward(tensor: Tensor, writes: bool, geometry: str, local: bool) -> Tensor:
        """The map."""
        return (_write if writes else _read)(tensor, geometry, local)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Keep what the map is."""
        _, *ctx.how = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        """The adjoint."""
        writes, *how = ctx.how
        return _Linear.apply(grads[0], not writes, *how), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """The map itself."""
        return _Linear.apply(tangents[0], *ctx.how)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        """Batched dimensions stand first."""
        tensor, *how = args
        return _Linear.apply(tensor.movedim(in_dims[0], 0), *how), 0


def write(values: Tensor, geometry: Geometry, *, local: bool = False) -> Tensor:
    """The matrix of a convolution.

    Args:
        values: Its kernel (..., out, in / groups, *kernel); or, `local`, one for each output
            position, (..., positions, out, entries).
        geometry: Of the convolution.
        local: Which of the two.

    Returns:
        (..., output values, input values), zero where no kernel entry stands.
    """
    return _apply(values, True, geometry, local)


def read(matrix: Tensor, geometry: Geometry, *, local: bool = False) -> Tensor:
    """The adjoint of `write`: the sum over all places of each kernel entry. Arguments as there."""
    return _apply(matrix, False, geometry, local)


@torch.no_grad()
def write_into(matrix: Tensor, kernel: Tensor, geometry: Geometry) -> None:
    """`write` of a kernel into a matrix that is there, in place, without other memory."""
    _fill(matrix.zero_(), kernel, geometry, False)


def _fill(matrix: Tensor, values: Tensor, geometry: Geometry, local: bool) -> None:
    for block in geometry.blocks:
        there, given = view(matrix, block), _entries(values, geometry, local, block)
        there.add_(given) if geometry.overlaps else there.copy_(given)


def _apply(tensor: Tensor, writes: bool, geometry: Geometry, local: bool) -> Tensor:
    if torch.compiler.is_compiling():  # takes no Function that has a jvp
        return (_write if writes else _read)(tensor, geometry.key, local)
    return _Linear.apply(tensor, writes, geometry.key, local)  # type: ignore[return-value]


@cache
def _geometry(key: str) -> Geometry:
    return decode(json.loads(key), Geometry)


def _values_shape(geometry: Geometry, local: bool) -> tuple[int, ...]:
    return geometry.local_shape if local else geometry.kernel_shape


def gram(geometry: Geometry, dtype: torch.dtype = torch.float64) -> Tensor:
    """Phi^T Phi of `write` between the entries of a filter plane, (entries, entries).

    It is the same for every filter and channel. Diagonal, how often each entry stands in the
    matrix, unless `geometry.overlaps`.
    """
    one = replace(geometry, in_shape=(1, *geometry.in_shape[1:]), out_channels=1, groups=1)
    if geometry.overlaps:
        entries = prod(geometry.kernel_size)
        units = torch.eye(entries, dtype=dtype).view(entries, 1, 1, *geometry.kernel_size)
        images = write(units, one).flatten(1)
        return images @ images.t()
    counts = torch.zeros(geometry.kernel_size, dtype=dtype)
    for block in one.blocks:
        counts[block.taps] += prod(p.stop - p.start for p in block.positions)
    return counts.flatten().diag()


@torch.no_grad()
def nearest_kernel(matrix: Tensor, geometry: Geometry) -> Tensor:
    """The kernel whose matrix is nearest, by least squares in float64, (out, in / groups, ...)."""
    matrix = matrix.contiguous()
    kernel = matrix.new_zeros(geometry.kernel_shape, dtype=torch.float64)
    for block in geometry.blocks:
        summed = view(matrix, block).sum(_over(geometry), keepdim=True, dtype=torch.float64)
        _entries(kernel, geometry, False, block, expand=False).add_(summed)
    products = gram(geometry).to(kernel.device)
    if not geometry.overlaps:
        # An entry that would only ever read padding that is folded away stands nowhere.
        return kernel / products.diagonal().clamp_min(1).view(geometry.kernel_size)
    inverse = torch.linalg.pinv(products, hermitian=True)
    return (kernel.flatten(2) @ inverse).view(geometry.kernel_shape)


def view(matrix: Tensor, block: Block) -> Tensor:
    """A block of matrices (..., rows, columns), which lie in one piece of memory."""
    batch, size = matrix.shape[:-2], matrix.shape[-2:].numel()
    steps = [size * prod(batch[1 + axis :]) for axis in range(len(batch))]
    start = matrix.storage_offset() + block.offset
    return matrix.as_strided((*batch, *block.size), (*steps, *block.stride), start)


def _over(geometry: Geometry) -> tuple[int, ...]:
    """Dimensions of the positions in a block, from its end."""
    n = len(geometry.positions)
    return tuple(range(-2 * n - 1, -n - 1))


def _dims(geometry: Geometry, local: bool) -> int:
    return len(_values_shape(geometry, local))


def _entries(
    values: Tensor, geometry: Geometry, local: bool, block: Block, *, expand: bool = True
) -> Tensor:
    """The values that stand in a block: (..., groups, filters, *positions, channels, *taps)."""
    groups, n = geometry.groups, len(geometry.positions)
    batch = values.shape[: values.dim() - _dims(geometry, local)]
    filters, channels = geometry.out_channels // groups, geometry.in_shape[0] // groups
    keep = (slice(None),) * (len(batch) + 2)
    if local:
        shaped = values.reshape(
            *batch, *geometry.positions, groups, filters, channels, *geometry.kernel_size
        )
        shaped = shaped.movedim((len(batch) + n, len(batch) + n + 1), (len(batch), len(batch) + 1))
        return shaped[(*keep, *block.positions, slice(None), *block.taps)]
    shaped = values.reshape(*batch, groups, filters, *(1,) * n, channels, *geometry.kernel_size)
    there = shaped[(*keep, *(slice(None),) * (n + 1), *block.taps)]
    return there.expand(*batch, *block.size) if expand else there
