"""What a network returns, whatever holds its tensors: taken apart, joined, put together again."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PLAIN = (type(None), bool, int, float, str)


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors in tensors, mappings, sequences and dataclasses, in order.

    Raises:
        TypeError: Something else is in them, which may hold tensors.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, PLAIN):
        return []
    parts = [value for _, value in _items(outputs)]
    return [tensor for part in parts for tensor in tensors_of(part)]


def with_tensors(outputs: Any, tensors: Iterator[Tensor]) -> Any:
    """The same structure with other tensors, in the order of `tensors_of`."""
    if isinstance(outputs, Tensor):
        return next(tensors)
    if isinstance(outputs, PLAIN):
        return outputs
    made = [(key, with_tensors(value, tensors)) for key, value in _items(outputs)]
    if isinstance(outputs, Mapping) or is_dataclass(outputs):
        new = copy.copy(outputs)
        for key, value in made:
            if isinstance(new, Mapping):
                new[key] = value  # type: ignore[index]
            else:
                object.__setattr__(new, key, value)
        return new
    values = [value for _, value in made]
    return type(outputs)(*values) if hasattr(outputs, "_fields") else type(outputs)(values)


def _items(outputs: Any) -> list[tuple[Any, Any]]:
    if isinstance(outputs, Mapping):
        return list(outputs.items())
    if isinstance(outputs, list | tuple):
        return list(enumerate(outputs))
    if is_dataclass(outputs):
        return [(field.name, getattr(outputs, field.name)) for field in fields(outputs)]
    raise TypeError(
        f"the network returns a {type(outputs).__name__}, whose images cannot be told apart; give "
        "tensors, mappings, sequences or dataclasses of them"
    )


def joined(parts: Sequence[Any], places: Sequence[Tensor]) -> Any:
    """Outputs of several batches as of one.

    Args:
        parts: The outputs.
        places: For each, int64: where its images are in the whole batch.

    Returns:
        The same structure. Where tensors have different sizes in one axis, the classes, the larger
        one, -inf where an image has no such class.

    Raises:
        TypeError: An output is of a kind that cannot be joined.
        ValueError: A tensor has no row for each image, or sizes differ in more than one axis.
    """
    columns = zip(*(tensors_of(part) for part in parts), strict=True)
    back = torch.cat([*places]).argsort()
    return with_tensors(parts[0], iter([_joined(column, places, back) for column in columns]))


def _joined(tensors: Sequence[Tensor], places: Sequence[Tensor], back: Tensor) -> Tensor:
    rows = all(t.dim() and len(t) == len(p) for t, p in zip(tensors, places, strict=True))
    sizes = [*zip(*(t.shape[1:] for t in tensors), strict=False)]
    axes = [axis for axis, given in enumerate(sizes, 1) if len(set(given)) > 1]
    alike = len({t.dim() for t in tensors}) == 1
    if not rows or not alike or len(axes) > 1 or (axes and not tensors[0].is_floating_point()):
        raise ValueError(
            f"outputs {', '.join(f'{t.dtype} {tuple(t.shape)}' for t in tensors)} of the domains "
            "of a batch cannot be joined by image; give domain -> images, or one domain a call"
        )
    for axis in axes:
        most = max(sizes[axis - 1])
        behind = (0, 0) * (tensors[0].dim() - axis - 1)
        missing = ((*behind, 0, most - t.shape[axis]) for t in tensors)
        tensors = [F.pad(t, pad, value=-torch.inf) for t, pad in zip(tensors, missing, strict=True)]
    return torch.cat([*tensors]).index_select(0, back.to(tensors[0].device))
