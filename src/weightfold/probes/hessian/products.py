"""Products of the Hessian, or of the Gauss-Newton matrix, with vectors."""

from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor

from weightfold.probes.objective import Batch, Objective, floats, free_bytes, grads, with_leaves

Product = Callable[[Tensor], Tensor]

CACHED = 0.25
"""Of the memory that is free, what graphs may take that are kept from one product to the next."""


def hessian_of(objective: Objective, batch: Batch, leaves: list[Tensor]) -> Product:
    """Products of a batch's share of the Hessian: the gradient's graph, run backward."""
    tensors = dict(zip(objective.start, leaves, strict=True))
    loss = objective.terms(tensors, batch.inputs, batch.targets).losses.mean() * batch.share
    _check(loss, "loss", objective)
    gradient = grads(loss, leaves, create_graph=True)
    return lambda vector: grads(gradient, leaves, vector, retain_graph=True)


def gauss_newton_of(objective: Objective, batch: Batch, leaves: list[Tensor]) -> Product:
    """Products of a batch's share of J^T H J: J of the outputs, H of the loss by the outputs."""
    tensors = dict(zip(objective.start, leaves, strict=True))
    outputs = objective.call(tensors)(batch.inputs)
    split = with_leaves(outputs)
    made, taken = floats(outputs), floats(split)
    terms = objective.task.objective(lambda *_: split, batch.inputs, batch.targets)
    loss = terms.losses.mean() * batch.share
    _check(loss, "loss", objective)
    by_outputs = grads(loss, taken, create_graph=True)
    made = [one for one in made if one.requires_grad]
    flat = torch.cat([one.reshape(-1) for one in made])
    dummy = torch.zeros_like(flat, requires_grad=True)
    pulled = grads(flat, leaves, dummy, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        pushed = grads(pulled, [dummy], vector, retain_graph=True)
        return grads(flat, leaves, grads(by_outputs, taken, pushed, retain_graph=True),
                     retain_graph=True)  # fmt: skip

    return product


def _check(loss: Tensor, what: str, objective: Objective) -> None:
    if not loss.isfinite():
        raise ValueError(f"net={type(objective.net).__name__}: its {what} is {loss.item()}")
    if not loss.requires_grad:
        raise ValueError(f"net={type(objective.net).__name__}: its {what} depends on no coordinate")


MATRICES = {"hessian": hessian_of, "gauss-newton": gauss_newton_of}


FEW, LARGEST = 4, 2048
"""Examples tried; most in a batch."""


class Products:
    """Products over all batches; the graphs of as many as memory allows are built once.

    Args:
        objective: The loss.
        matrix: "hessian" or "gauss-newton".

    Attributes:
        count: Products computed so far.

    Raises:
        ValueError: The loss is random or not finite, or depends on no coordinate.
    """

    def __init__(self, objective: Objective, matrix: str) -> None:
        objective.check_deterministic()
        self.count, self._of = 0, MATRICES[matrix]
        self._leaves = [t.clone().requires_grad_() for t in objective.start.values()]
        fitting = self._fitting(objective)
        self.objective = objective = objective.in_batches_of(max(1, min(LARGEST, fitting)))
        largest = -(-objective.examples // objective.count)
        first = islice(objective.batches(), max(objective.count == 1, fitting // largest))
        self._kept = [self._of(objective, batch, self._leaves) for batch in first]

    def __call__(self, vector: Tensor) -> Tensor:
        """The matrix times a vector, (size,)."""
        self.count += 1
        total = torch.zeros_like(vector)
        for product in self._kept:
            total += product(vector)
        for batch in self.objective.batches(len(self._kept)):
            total += self._of(self.objective, batch, self._leaves)(vector)
        return total

    def _fitting(self, objective: Objective) -> int:
        """How many examples' graphs fit into the memory that they may take, tried with a few."""
        batch = next(objective.batches())
        few = batch._replace(inputs=batch.inputs[:FEW], targets=batch.targets[:FEW])
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._of(objective, few, self._leaves)
        for leaf in self._leaves:
            kept.pop(leaf.untyped_storage().data_ptr(), None)
        each = max(1, sum(kept.values()) // len(few.inputs))
        return int(CACHED * free_bytes(objective.device) // each)
