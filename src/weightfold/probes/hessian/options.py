"""Options of the probe `hessian`."""

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from weightfold.core.arguments import check_choices, whole
from weightfold.probes.hessian.verb import Matrix
from weightfold.probes.objective import BatchNorm, Coordinates


@dataclass(frozen=True, kw_only=True)
class CurvatureOptions:
    """What curvature is measured, and how well.

    Attributes:
        k: Eigenvalues at the upper end; of the lower one.
        coordinates: See `wf.hessian`.
        matrix: See `wf.hessian`.
        bn: See `wf.hessian`.
        examples: Training examples; None: all.
        tol: Largest bound of an eigenvalue, relative to it.
        products: Most products for the eigenvalues, each end and each layer alike.
        vectors: Random vectors of the spectrum.
        steps: Products of each.
        layers: Whether the top eigenvalue of each layer's block is found too.

    Raises:
        ValueError: One is out of range.
    """

    k: int = 5
    coordinates: Coordinates = "theta"
    matrix: Matrix = "hessian"
    bn: BatchNorm = "keep"
    examples: int | None = 1000
    tol: float = 1e-3
    products: int = 200
    vectors: int = 5
    steps: int = 30
    layers: bool = True

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("products", 6), ("vectors", 2), ("steps", 2)):
            whole(getattr(self, name), name, least=least)
        if self.examples is not None:
            whole(self.examples, "examples", least=1)
        if not 0 < self.tol < 1:
            raise ValueError(f"tol={self.tol}; give a number between 0 and 1")
        kinds = {"coordinates": Coordinates, "matrix": Matrix, "bn": BatchNorm}
        given = {name: getattr(self, name) for name in kinds}
        check_choices(given, {name: get_args(kind) for name, kind in kinds.items()})


class CurvatureKeywords(TypedDict, total=False):
    """`CurvatureOptions` as keyword arguments of the probe."""

    options: CurvatureOptions
    k: int
    coordinates: Literal["theta", "psi"]
    matrix: Literal["hessian", "gauss-newton"]
    bn: Literal["keep", "recalibrate", "batch"]
    examples: int | None
    tol: float
    products: int
    vectors: int
    steps: int
    layers: bool
