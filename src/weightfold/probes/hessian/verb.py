"""wf.hessian: curvature of a task's loss."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from weightfold.core.arguments import check_choices, real, whole
from weightfold.core.select import Where
from weightfold.core.slots import split_name
from weightfold.data.pairs import Data
from weightfold.probes.hessian import krylov
from weightfold.probes.hessian.krylov import BASIS, Eigenvalue, Trace, Which
from weightfold.probes.hessian.products import Products
from weightfold.probes.hessian.spectrum import Spectrum
from weightfold.probes.objective import BatchNorm, Coordinates, Objective, free_bytes
from weightfold.tasks.task import Task

Matrix = Literal["hessian", "gauss-newton"]


def hessian(
    net: nn.Module,
    data: Task | Data,
    *,
    where: Where = None,
    coordinates: Coordinates = "theta",
    matrix: Matrix = "hessian",
    bn: BatchNorm = "keep",
    examples: int | None = None,
    device: torch.device | str | None = None,
) -> "Hessian":
    """The Hessian of the mean training loss at a network's weights, known by its products.

    >>> import weightfold as wf
    >>> net = wf.nets.build("mlp,depth=1,width=4,size=8", num_classes=10, in_channels=1)
    >>> h = wf.hessian(net, wf.data.load("digits,limit=100"))
    >>> (top,) = h.eigenvalues(1)
    >>> top.bound <= 1e-3 * top.value
    True

    Products run the graph of the gradient backward; that graph is built once, for as many batches
    as a quarter of the free memory holds. All modules stay in the modes they are in (`net.eval()`
    turns dropout off), but for batch norms, which `bn` decides on.

    Args:
        net: A module or a Charted net, whose own dtype and device are used; left unchanged.
        data: A task, of whatever loss; data alone is to be classified.
        where: Trainable tensors by name, glob, type or predicate, as "conv1.*"; None: all.
        coordinates: Of a Charted net: "theta", the deployed weights, in which expanded and compact
            networks compare, or "psi", which the optimizer moves.
        matrix: "hessian", or "gauss-newton": J^T H J with the Jacobian J of the outputs and the
            Hessian H of the loss by them.
        bn: "keep": batch norms use their running statistics, as constants; "recalibrate": these,
            estimated anew first; "batch": those of each batch of at most 512, differentiated
            through.
        examples: Of the training set, the first of a random order; None: all.
        device: Where to compute; None: where the network is.

    Raises:
        TypeError: `net` is no module.
        ValueError: An argument is out of range, or the loss is random (dropout on) or not finite.
    """
    check_choices({"matrix": matrix}, {"matrix": get_args(Matrix)})
    objective = Objective(
        net, data, where=where, coordinates=coordinates, bn=bn, examples=examples, device=device
    )
    if matrix == "gauss-newton" and objective.task.model_computes_loss:
        raise ValueError(
            f"matrix={matrix!r}: the model of task {objective.task.name!r} computes the loss itself"
        )
    return Hessian(objective, matrix)


@dataclass(frozen=True)
class Hessian:
    """A symmetric matrix by its products, with what is known of it.

    Attributes:
        objective: Whose curvature it is.
        matrix: "hessian" or "gauss-newton".
    """

    objective: Objective
    matrix: Matrix = "hessian"

    @cached_property
    def products(self) -> Products:
        """What multiplies, and counts."""
        return Products(self.objective, self.matrix)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.objective.size

    def __repr__(self) -> str:
        return f"{self.matrix.capitalize()} of size {self.size:,}: {self.objective.statement}"

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The matrix times a vector (size,), or the columns of (size, n).

        Raises:
            ValueError: It is of another size.
        """
        if vector.shape[0] != self.size or vector.dim() > 2:
            raise ValueError(f"vector has shape {tuple(vector.shape)}; give ({self.size},)")
        vector = vector.to(self._like)
        if vector.dim() == 1:
            return self.products(vector)
        return torch.stack([self.products(one) for one in vector.T.contiguous()], dim=1)

    @property
    def _like(self) -> Tensor:
        some = next(iter(self.objective.start.values()))
        return some.new_empty(1).expand(self.size)

    def eigenvalues(
        self,
        k: int = 1,
        *,
        which: Which = "largest",
        tol: float = 1e-3,
        products: int = 200,
        seed: int = 0,
    ) -> tuple[Eigenvalue, ...]:
        """The k largest (or smallest) eigenvalues, each with a bound that was measured.

        An eigenvalue lies within `bound` of each value; that no larger one is missed rests on
        random start vectors, as with every method of products. See `krylov.eigenvalues`.

        Args:
            k: How many.
            which: "largest", "smallest", or "magnitude".
            tol: Largest bound, relative to the eigenvalue (beside rounding).
            products: Most products.
            seed: Of start vectors.

        Raises:
            NotConverged: They are not found to `tol` in so many products; `found` of the error has
                the intervals.
            ValueError: An argument is out of range.
        """
        return self.eigenpairs(k, which=which, tol=tol, products=products, seed=seed)[0]

    def eigenpairs(
        self,
        k: int = 1,
        *,
        which: Which = "largest",
        tol: float = 1e-3,
        products: int = 200,
        seed: int = 0,
    ) -> tuple[tuple[Eigenvalue, ...], Tensor]:
        """As `eigenvalues`, with unit vectors (k, size)."""
        check_choices({"which": which}, {"which": get_args(Which)})
        if whole(k, "k", least=1) > self.size:
            raise ValueError(f"k={k}: the matrix has {self.size} eigenvalues")
        whole(products, "products", least=k)
        if not 0 < real(tol, "tol") < 1:
            raise ValueError(f"tol={tol}; give a number between 0 and 1")
        room = int(BASIS * free_bytes(self.objective.device))
        return krylov.eigenvalues(
            self.products, self._like, k, which=which, tol=tol, most=products, seed=seed, room=room
        )

    def spectrum(self, *, vectors: int = 10, steps: int = 50, seed: int = 0) -> Spectrum:
        """The density of eigenvalues, by stochastic Lanczos quadrature.

        Args:
            vectors: Random vectors, at least 2: what they differ by is the sampling error.
            steps: Products of each.
            seed: Of the vectors.

        Raises:
            ValueError: An argument is out of range.
        """
        whole(vectors, "vectors", least=2)
        whole(steps, "steps", least=2)
        found = krylov.quadrature(
            self.products, self._like, vectors=vectors, steps=steps, seed=seed
        )
        return Spectrum(self.size, found)

    def trace(
        self, *, products: int = 60, method: Literal["hutch++", "hutchinson"] = "hutch++",
        seed: int = 0,
    ) -> Trace:  # fmt: skip
        """The trace with half of its 95% interval over random vectors.

        Args:
            products: How many, at least 6; as many as coordinates give the exact value.
            method: "hutch++" (Meyer et al. 2021) or "hutchinson".
            seed: Of random vectors.

        Raises:
            ValueError: An argument is out of range.
        """
        check_choices({"method": method}, {"method": ("hutch++", "hutchinson")})
        whole(products, "products", least=6)
        sketch = method == "hutch++"
        return krylov.trace(self.products, self._like, products=products, sketch=sketch, seed=seed)

    def layers(self) -> dict[str, "Hessian"]:
        """The diagonal block of each layer, by its path: second derivatives within the layer."""
        names: dict[str, list[str]] = {}
        for name in self.objective.start:
            names.setdefault(split_name(name)[0], []).append(name)
        return {
            layer: Hessian(self.objective.restricted(own), self.matrix)
            for layer, own in names.items()
        }
