"""Where a convolution's kernel stands in the matrix that the convolution is: strided blocks.

Row and column of the matrix are an output and an input value. A kernel entry stands at every output
position, so that a block of the matrix, seen with other strides, is the kernel repeated. Padding is
kept, as columns for the padded input, and the whole matrix is one block; or it is folded away, and
there is one block for each entry of the kernel, cut where it would read padding.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, Self

from torch import nn

from weightfold.codec import encode

Ints = tuple[int, ...]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Block:
    """A strided view of a matrix, and the entries of (groups, out, *positions, in, *kernel).

    Attributes:
        positions: Output positions, a slice of each dimension.
        taps: Kernel entries, a slice of each dimension.
        size: Of the view: groups, filters of a group, *positions, channels of a group, *taps.
        stride: Of the view, over the matrix as it lies in memory.
        offset: Of its first element.
    """

    positions: tuple[slice, ...]
    taps: tuple[slice, ...]
    size: Ints
    stride: Ints
    offset: int


@dataclass(frozen=True)
class Geometry:
    """A convolution of 1, 2 or 3 dimensions on images of one size.

    Attributes:
        in_shape: (C, *size) of the input.
        out_channels: Filters.
        kernel_size: Of each dimension, as the next three.
        stride: Steps of the kernel.
        padding: (before, after) of each dimension.
        dilation: Steps between kernel entries.
        groups: Of channels.
        padding_mode: As torch has it, "zeros" and so on.
        folded: Whether columns of padding are folded away rather than kept.
    """

    in_shape: Ints
    out_channels: int
    kernel_size: Ints
    stride: Ints
    padding: tuple[tuple[int, int], ...]
    dilation: Ints
    groups: int
    padding_mode: str
    folded: bool

    @classmethod
    def of(cls, layer: Any, in_shape: Ints, folded: bool) -> Self:
        """That of a layer of `CONVOLUTIONS`."""
        # torch's own numbers for padding="same", last dimension first.
        pairs = [*zip(*[iter(layer._reversed_padding_repeated_twice)] * 2, strict=True)]
        return cls(
            tuple(in_shape), layer.out_channels, layer.kernel_size, layer.stride,
            tuple(reversed(pairs)), layer.dilation, layer.groups, layer.padding_mode, folded,
        )  # fmt: skip

    @cached_property
    def key(self) -> str:
        """Its fields as JSON."""
        return json.dumps(encode(self))

    @property
    def padded(self) -> Ints:
        """(C, *size) of what the matrix multiplies."""
        if self.folded:
            return self.in_shape
        sizes = zip(self.in_shape[1:], self.padding, strict=True)
        return (self.in_shape[0], *(size + sum(pair) for size, pair in sizes))

    @cached_property
    def positions(self) -> Ints:
        """Output positions of each dimension."""
        return tuple(
            (size + sum(pair) - dilation * (kernel - 1) - 1) // stride + 1
            for size, pair, dilation, kernel, stride in zip(
                self.in_shape[1:], self.padding, self.dilation, self.kernel_size, self.stride,
                strict=True,
            )
        )  # fmt: skip

    @property
    def out_shape(self) -> Ints:
        """(C, *size) of the output."""
        return (self.out_channels, *self.positions)

    @property
    def kernel_shape(self) -> Ints:
        """(out, in / groups, *kernel)."""
        return (self.out_channels, self.in_shape[0] // self.groups, *self.kernel_size)

    @property
    def matrix_shape(self) -> Ints:
        """(output values, input values)."""
        return prod(self.out_shape), prod(self.padded)

    @property
    def local_shape(self) -> Ints:
        """(positions, out, entries of a filter): a kernel for every output position."""
        return prod(self.positions), self.out_channels, prod(self.kernel_shape[1:])

    @property
    def overlaps(self) -> bool:
        """Whether two kernel entries may stand in one place of the matrix."""
        return self.folded and self.padding_mode != "zeros" and any(map(any, self.padding))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, which cover every place where a kernel entry stands."""
        if not self.folded:
            runs = [
                ((slice(0, n), slice(0, k), 0),)
                for n, k in zip(self.positions, self.kernel_size, strict=True)
            ]
        else:
            runs = [tuple(self._runs(axis)) for axis in range(len(self.positions))]
        return tuple(self._block(places) for places in product(*runs))

    def _runs(self, axis: int) -> Iterator[tuple[slice, slice, int]]:
        """Of a dimension, for each kernel entry: positions, the entry, column of the first."""
        size, step = self.in_shape[1 + axis], self.stride[axis]
        count, (before, _) = self.positions[axis], self.padding[axis]
        for tap in range(self.kernel_size[axis]):
            shift, entry = tap * self.dilation[axis] - before, slice(tap, tap + 1)
            first = max(0, -(shift // step))
            last = max(first, min(count, (size - 1 - shift) // step + 1))
            if last > first:
                yield slice(first, last), entry, first * step + shift
            if self.padding_mode != "zeros":
                for position in (*range(min(first, count)), *range(last, count)):
                    column = self._reflected(position * step + shift, size)
                    yield slice(position, position + 1), entry, column

    def _reflected(self, column: int, size: int) -> int:
        """The column that a column of padding repeats."""
        if self.padding_mode == "circular":
            return column % size
        if self.padding_mode == "replicate":
            return min(max(column, 0), size - 1)
        return -column if column < 0 else 2 * (size - 1) - column

    def _block(self, places: tuple[tuple[slice, slice, int], ...]) -> Block:
        columns = self.matrix_shape[1]
        plane, outputs = prod(self.padded[1:]), prod(self.positions)
        filters, channels = self.out_channels // self.groups, self.in_shape[0] // self.groups
        steps = [prod(self.padded[2 + axis :]) for axis in range(len(places))]
        rowsteps = [prod(self.positions[1 + axis :]) for axis in range(len(places))]
        moves = [
            row * columns + stride * step
            for row, stride, step in zip(rowsteps, self.stride, steps, strict=True)
        ]
        offset = sum(
            place.start * row * columns + first * step
            for (place, _, first), row, step in zip(places, rowsteps, steps, strict=True)
        )
        along = [dilation * step for dilation, step in zip(self.dilation, steps, strict=True)]
        return Block(
            tuple(place for place, _, _ in places),
            tuple(taps for _, taps, _ in places),
            (self.groups, filters, *(p.stop - p.start for p, _, _ in places),
             channels, *(t.stop - t.start for _, t, _ in places)),
            (filters * outputs * columns + channels * plane, outputs * columns, *moves,
             plane, *along),
            offset,
        )  # fmt: skip
