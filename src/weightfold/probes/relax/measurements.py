"""What is measured of a network in the larger space."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.data import Dataset
from weightfold.methods.embed.distance import deviation
from weightfold.methods.embed.layers import DenseConv, embedded_layers
from weightfold.methods.embed.strided import view
from weightfold.tasks.task import evaluating

BATCH = 500
"""Test images run at once."""


@dataclass(frozen=True)
class Point:
    """A network after some epochs.

    Attributes:
        epoch: Epochs.
        accuracy: On the test set, in [0, 1].
        loss: On the test set.
        train_loss: Mean over the epoch's steps; None before the first.
    """

    epoch: int
    accuracy: float
    loss: float
    train_loss: float | None


@dataclass(frozen=True)
class State:
    """A network of the larger space, measured.

    Attributes:
        accuracy: On the test set.
        loss: On the training examples of the curvature; None if that is not measured.
        gradient: Norm of its gradient.
        eigenvalue: Largest eigenvalue of its Hessian, by Lanczos.
        residual: Bound of the eigenvalue's error: the norm of the residual.
        local: Deviation from local weights, the paper's delta.
        shared: Deviation from convolutions.
        only_local: Test accuracy with off-local weights zero; None in local networks.
        only_off_local: Test accuracy with local weights zero.
    """

    accuracy: float
    loss: float | None
    gradient: float | None
    eigenvalue: float | None
    residual: float | None
    local: float
    shared: float
    only_local: float | None
    only_off_local: float | None

    @property
    def sharing(self) -> float:
        """By how much weight sharing is violated: the part of `shared` that is not off-local."""
        return max(0.0, self.shared**2 - self.local**2) ** 0.5


def measure_state(net: nn.Module, samples: Dataset, examples: int) -> State:
    """Measure a network.

    Args:
        net: Embedded, on the device of `samples`; left unchanged.
        samples: The data.
        examples: Of the training set, the first ones, for gradient and curvature.
    """
    loss = gradient = eigenvalue = residual = None
    if examples:
        chosen = samples.train.select(torch.arange(min(examples, len(samples.train))))
        loss, gradient, eigenvalue, residual = sharpness(
            net, samples.normalize(chosen.inputs), chosen.targets
        )
    parts: list[float | None] = [None, None]
    if all(isinstance(layer, DenseConv) for layer in embedded_layers(net).values()):
        for place, local in enumerate((True, False)):
            with only(net, local=local):
                parts[place] = accuracy(net, samples)
    return State(
        accuracy(net, samples), loss, gradient, eigenvalue, residual,
        deviation(net, "local"), deviation(net, "shared"), *parts,
    )  # fmt: skip


@torch.no_grad()
def accuracy(net: nn.Module, samples: Dataset) -> float:
    """Share of the test set that is right, in eval mode."""
    right = 0
    with evaluating(net):
        for order in torch.arange(len(samples.test)).split(BATCH):
            chosen = samples.test.select(order)
            logits = net(samples.normalize(chosen.inputs))
            right += int((logits.argmax(1) == chosen.targets).sum())
    return right / len(samples.test)


@contextmanager
def only(net: nn.Module, *, local: bool) -> Iterator[None]:
    """Dense layers with their local weights alone, or with the others alone, inside the block."""
    layers = [m for m in embedded_layers(net).values() if isinstance(m, DenseConv)]
    kept = [layer.weight.detach().clone() for layer in layers]
    try:
        with torch.no_grad():
            for layer, whole in zip(layers, kept, strict=True):
                if local:
                    layer.weight.zero_()
                for block in layer.geometry.blocks:
                    there = view(layer.weight, block)
                    there.copy_(view(whole, block)) if local else there.zero_()
        yield
    finally:
        with torch.no_grad():
            for layer, whole in zip(layers, kept, strict=True):
                layer.weight.copy_(whole)


def sharpness(
    net: nn.Module, x: Tensor, y: Tensor, *, most: int = 24, tolerance: float = 0.01
) -> tuple[float, float, float, float]:
    """Mean cross-entropy, norm of its gradient, top eigenvalue of its Hessian, and its residual.

    By Lanczos with full reorthogonalisation, in eval mode; some eigenvalue is within the residual.

    Args:
        net: Left unchanged.
        x: Inputs.
        y: Class labels.
        most: Products with the Hessian, at most.
        tolerance: Residual over eigenvalue at which to stop.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    with evaluating(net), torch.enable_grad():
        loss = F.cross_entropy(net(x), y)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        flat = torch.cat([g.flatten() for g in gradients])

        def product(vector: Tensor) -> Tensor:
            found = torch.autograd.grad(
                flat, parameters, vector, retain_graph=True, materialize_grads=True
            )
            return torch.cat([g.flatten() for g in found])

        start = flat.detach()
        eigenvalue, residual = _lanczos(product, start / start.norm(), most, tolerance)
    return loss.item(), start.norm().item(), eigenvalue, residual


def _lanczos(
    product: Callable[[Tensor], Tensor], start: Tensor, most: int, tolerance: float
) -> tuple[float, float]:
    basis, alphas, betas = [start], [], []
    value = residual = float("nan")
    for _ in range(most):
        vector = product(basis[-1])
        alphas.append(torch.dot(vector, basis[-1]).item())
        for _ in range(2):
            for one in basis:
                vector = vector - torch.dot(vector, one) * one
        betas.append(vector.norm().item())
        tridiagonal = torch.diag(torch.tensor(alphas, dtype=torch.float64))
        off = torch.tensor(betas[:-1], dtype=torch.float64)
        if len(off):
            tridiagonal += torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(tridiagonal)
        value, residual = values[-1].item(), abs(betas[-1] * vectors[-1, -1].item())
        if residual <= tolerance * abs(value) or betas[-1] <= 1e-12:
            break
        basis.append(vector / betas[-1])
    return value, residual
