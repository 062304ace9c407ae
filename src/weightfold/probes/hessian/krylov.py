"""Eigenvalues, spectrum and trace of a symmetric matrix known by its products, with bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt
from typing import Literal

import torch
from torch import Tensor

from weightfold.report.statistics import paired

Which = Literal["largest", "smallest", "magnitude"]
"""The algebraically largest or smallest eigenvalues, or those of largest magnitude."""

ORDER: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": lambda values: values,
    "smallest": lambda values: -values,
    "magnitude": lambda values: values.abs(),
}

BASIS = 0.25
"""Of the memory that is free, what basis vectors and their images may take."""


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue lies in [value - bound, value + bound].

    Attributes:
        value: The Ritz value.
        bound: The measured norm of H y - value y of its unit vector y.
    """

    value: float
    bound: float


class NotConverged(ArithmeticError):
    """Eigenvalues were not found to the tolerance asked for.

    Attributes:
        found: The Ritz values with their bounds: some eigenvalue is in each interval.
    """

    def __init__(self, message: str, found: tuple[Eigenvalue, ...]) -> None:
        super().__init__(message)
        self.found = found


class Basis:
    """Orthonormal vectors with their images under the matrix, and what it is on their span.

    Args:
        product: The matrix times a vector.
        like: Gives size, dtype and device.
        capacity: Most vectors kept.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], like: Tensor, capacity: int) -> None:
        self._product = product
        self.vectors = like.new_empty(capacity, like.numel())
        self.images = like.new_empty(capacity, like.numel())
        self.matrix = torch.zeros(capacity, capacity, dtype=torch.float64)
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether no vector fits."""
        return self.count == len(self.vectors)

    def add(self, vector: Tensor) -> Tensor:
        """Take in a unit vector orthogonal to the others; what of its image is new, (size,)."""
        n = self.count
        self.vectors[n] = vector
        self.images[n] = image = self._product(vector)
        self.count = n + 1
        column = (self.vectors[: n + 1] @ image).double().cpu()
        self.matrix[: n + 1, n] = self.matrix[n, : n + 1] = column
        return self.orthogonal(image)

    def orthogonal(self, vector: Tensor) -> Tensor:
        """The part of a vector that is orthogonal to the basis: Gram-Schmidt, twice."""
        known = self.vectors[: self.count]
        for _ in range(2):
            vector = vector - known.T @ (known @ vector)
        return vector

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values in ascending order, and their coefficients in columns; float64."""
        return torch.linalg.eigh(self.matrix[: self.count, : self.count])

    def residuals(self, values: Tensor, coefficients: Tensor) -> Tensor:
        """Norm of H y - value y of each, as measured; float64."""
        s = coefficients.to(self.vectors).T
        y, hy = s @ self.vectors[: self.count], s @ self.images[: self.count]
        errors = (hy - values.to(y)[:, None] * y).double().norm(dim=1)
        return (errors / y.double().norm(dim=1)).cpu()

    def restart(self, values: Tensor, coefficients: Tensor) -> None:
        """Keep some Ritz vectors alone (thick restart)."""
        s, n = coefficients.to(self.vectors).T, coefficients.shape[1]
        self.vectors[:n] = s @ self.vectors[: self.count]
        self.images[:n] = s @ self.images[: self.count]
        self.matrix.zero_()
        self.matrix[:n, :n] = values.diag()
        self.count = n


def eigenvalues(
    product: Callable[[Tensor], Tensor],
    like: Tensor,
    k: int,
    *,
    which: Which = "largest",
    tol: float,
    most: int,
    seed: int = 0,
    room: int = 2**40,
) -> tuple[tuple[Eigenvalue, ...], Tensor]:
    """Eigenvalues by Lanczos with full reorthogonalisation and thick restarts.

    Each has the measured residual as its bound. A start vector finds of equal eigenvalues only one,
    and may hardly contain a larger one's; so the search goes on from a fresh vector, half as long
    as it took, and ends once that changes nothing.

    Args:
        product: The symmetric matrix times a vector.
        like: A vector of its size, dtype and device.
        k: How many.
        which: Which ones.
        tol: Largest bound, relative to the eigenvalue; but rounding, relative to the largest.
        most: Most products.
        seed: Of start vectors.
        room: Bytes for the basis.

    Returns:
        The eigenvalues in the order of `which`, and their unit vectors (k, size).

    Raises:
        NotConverged: `most` products did not do.
    """
    size, generator = like.numel(), torch.Generator().manual_seed(seed)
    fitting = int(room // (2 * size * like.element_size()))
    basis = Basis(product, like, min(size, most, max(2 * k + 8, fitting)))
    eps = torch.finfo(like.dtype).eps

    def fresh() -> Tensor:
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        vector = basis.orthogonal(drawn.to(like))
        return vector / vector.norm()

    vector, done, sweep, first = fresh(), 0, 0, 0
    known: tuple[Tensor, Tensor] | None = None
    while True:
        rest = basis.add(vector)
        done, sweep = done + 1, sweep + 1
        values, coefficients = basis.ritz()
        order = ORDER[which](values).argsort(descending=True)
        best = order[:k]
        bounds = torch.full((len(best),), inf, dtype=torch.float64)
        norm = values.abs().max().item()
        complete = basis.count == size
        converged = False
        if len(best) == k or complete:
            bounds = basis.residuals(values[best], coefficients[:, best]) + eps * norm
            allowed = tol * values[best].abs() + 16 * eps * norm
            converged = bool((bounds <= allowed).all())
        if complete:
            break
        if converged and known is not None and sweep >= max(4, first // 2):
            before, within = known
            if bool(((values[best] - before).abs() <= within).all()):
                break
            known = None
        if done >= most:
            break
        exhausted = bool(rest.norm() <= 16 * eps * norm)
        if converged and known is None:
            known, first, sweep, exhausted = (values[best], bounds), sweep, 0, True
        if basis.full:
            keep = order[: max(k + 2, len(basis.vectors) // 2)]
            basis.restart(values[keep], coefficients[:, keep])
        vector = fresh() if exhausted else basis.orthogonal(rest)
        vector = vector / vector.norm()
    found = tuple(map(Eigenvalue, values[best].tolist(), bounds.tolist()))
    if not converged and not complete:
        raise NotConverged(_unconverged(found, which, tol, done), found)
    vectors = coefficients[:, best].to(like).T @ basis.vectors[: basis.count]
    return found, vectors


def _unconverged(found: tuple[Eigenvalue, ...], which: Which, tol: float, done: int) -> str:
    listed = ", ".join(f"{one.value:.4g} ± {one.bound:.2g}" for one in found[:4])
    return (
        f"{which} eigenvalues not converged to tol={tol:g} after {done} products: one lies in each "
        f"of {listed}{', ...' if len(found) > 4 else ''}; raise products or tol"
    )


@dataclass(frozen=True)
class Measure:
    """The spectrum as one random vector sees it, up to its first moments: Lanczos' matrix.

    Attributes:
        diagonal: Of the tridiagonal matrix.
        beside: Beside the diagonal, one entry fewer.
    """

    diagonal: tuple[float, ...]
    beside: tuple[float, ...]

    @property
    def nodes(self) -> list[float]:
        """Those of Gauss quadrature, ascending: the matrix's eigenvalues."""
        return self._quadrature[0]

    @property
    def weights(self) -> list[float]:
        """Of each node, at least 0, summing to 1."""
        return self._quadrature[1]

    @cached_property
    def _quadrature(self) -> tuple[list[float], list[float]]:
        return _gauss(self._matrix)

    @property
    def _matrix(self) -> Tensor:
        beside = torch.tensor(self.beside, dtype=torch.float64)
        diagonal = torch.tensor(self.diagonal, dtype=torch.float64)
        return diagonal.diag() + beside.diag(1) + beside.diag(-1)

    def share_below(self, x: float) -> tuple[float, float]:
        """Least and greatest measure up to x of all spectra with these moments.

        By the quadrature that has x among its nodes (Chebyshev, Markov, Stieltjes).
        """
        matrix = self._matrix
        if len(matrix) > 1:
            above = matrix[:-1, :-1] - x * torch.eye(len(matrix) - 1, dtype=torch.float64)
            last = torch.zeros(len(above), dtype=torch.float64)
            last[-1] = 1.0
            corner = torch.linalg.lstsq(above, last[:, None], driver="gelsd").solution[-1, 0]
            matrix[-1, -1] = x + self.beside[-1] ** 2 * corner
        else:
            matrix[0, 0] = x
        nodes, weights = _gauss(matrix)
        at = min(range(len(nodes)), key=lambda i: abs(nodes[i] - x))
        return sum(weights[:at]), min(1.0, sum(weights[: at + 1]))


def _gauss(matrix: Tensor) -> tuple[list[float], list[float]]:
    values, vectors = torch.linalg.eigh(matrix)
    return values.tolist(), vectors[0].square().tolist()


def quadrature(
    product: Callable[[Tensor], Tensor], like: Tensor, *, vectors: int, steps: int, seed: int
) -> tuple[Measure, ...]:
    """Stochastic Lanczos quadrature: a measure for each random vector.

    Args:
        product: The symmetric matrix times a vector.
        like: A vector of its size, dtype and device.
        vectors: Random vectors.
        steps: Products of each.
        seed: Of the vectors.
    """
    size, generator = like.numel(), torch.Generator().manual_seed(seed)
    eps = torch.finfo(like.dtype).eps
    found = []
    for _ in range(vectors):
        basis = Basis(product, like, min(steps, size))
        vector = rademacher(size, generator, like) / sqrt(size)
        while True:
            rest = basis.add(vector)
            scale = basis.matrix.abs().max().item()
            if basis.full or rest.norm() <= 16 * eps * scale:
                break
            vector = rest / rest.norm()
        matrix = basis.matrix[: basis.count, : basis.count]
        found.append(Measure(tuple(matrix.diag().tolist()), tuple(matrix.diag(1).tolist())))
    return tuple(found)


@dataclass(frozen=True)
class Trace:
    """An estimate of the trace.

    Attributes:
        value: The estimate.
        bound: Half of its 95% Student-t interval over random vectors; 0 where it is exact.
        method: "Hutch++", "Hutchinson" or "exact".
    """

    value: float
    bound: float
    method: str


def trace(
    product: Callable[[Tensor], Tensor], like: Tensor, *, products: int, sketch: bool, seed: int
) -> Trace:
    """The trace by Hutch++ (Meyer et al. 2021) or by Hutchinson's estimator.

    Args:
        product: The symmetric matrix times a vector.
        like: A vector of its size, dtype and device.
        products: How many; at least 6.
        sketch: Two thirds of them find the space in which the matrix is largest, where the trace is
            exact, and the rest samples what is orthogonal to it; else all are samples.
        seed: Of random vectors.
    """
    size, generator = like.numel(), torch.Generator().manual_seed(seed)
    if products >= size:
        rows = torch.eye(size).to(like)
        diagonal = [product(row)[i].double().item() for i, row in enumerate(rows)]
        return Trace(sum(diagonal), 0.0, "exact")
    exact, space = 0.0, like.new_empty(size, 0)
    if sketch:
        count = products // 3
        drawn = torch.stack([rademacher(size, generator, like) for _ in range(count)])
        space = torch.linalg.qr(torch.stack([product(v) for v in drawn]).T)[0]
        exact = sum((v @ product(v)).double().item() for v in space.T.contiguous())
    samples = []
    for _ in range(products - 2 * space.shape[1]):
        vector = rademacher(size, generator, like)
        vector = vector - space @ (space.T @ vector)
        samples.append((vector @ product(vector)).double().item())
    found = paired(samples, [0.0] * len(samples))
    bound = (found.high or 0.0) - found.mean
    return Trace(exact + found.mean, bound, "Hutch++" if sketch else "Hutchinson")


def rademacher(size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Entries 1 and -1."""
    return (2 * torch.randint(0, 2, (size,), generator=generator) - 1).to(like)
