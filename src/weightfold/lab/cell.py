"""A cell: one network trained once, named by everything that defines it. Imports no torch."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.train.recipe import Distillation, Recipe

if TYPE_CHECKING:
    from torch import nn

    from weightfold.data import Dataset
    from weightfold.train import History, Row


@dataclass(frozen=True)
class Cell:
    """What is trained, on what, how, and from which seed.

    Attributes:
        model: Network spec, as `weightfold.nets.build` takes it.
        variant: How it is trained: "compact", "acnet", or an expansion, see
            `weightfold.lab.variants`.
        data: Data spec, as `weightfold.data.load` takes it.
        recipe: Hyperparameters.
        seed: Of initial weights, data order, augmentation and dropout.
        distillation: Temperature and weight, with `teacher`.
        teacher: Cell whose last weights teach.
    """

    model: str
    variant: str
    data: str
    recipe: Recipe
    seed: int
    distillation: Distillation | None = None
    teacher: "Cell | None" = field(default=None)

    @property
    def key(self) -> str:
        """Hash of all fields; equal cells have equal results."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder(self) -> str:
        """Name of the run's folder, readable and unique."""
        parts = (self.model, self.variant, self.data, f"seed{self.seed}", self.key)
        return "_".join("".join(c if c.isalnum() or c in "-.+" else "-" for c in p) for p in parts)


def build(cell: Cell, dataset: "Dataset") -> "nn.Module":
    """The cell's network with its seeded initial weights."""
    from weightfold.lab.variants import make_net

    return make_net(
        cell.model,
        cell.variant,
        seed=cell.seed,
        num_classes=dataset.num_classes,
        image_shape=dataset.train.image_shape,
    )


def run(
    cell: Cell,
    root: Path,
    *,
    data_root: Path | None = None,
    progress: "bool | Callable[[Row], None]" = True,
    **options: Any,
) -> "History":
    """Train a cell in its folder below `root`, or go on where it stopped; a no-op once finished.

    Args:
        cell: What to train.
        root: Folder of the runs.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        progress: As for `weightfold.train.fit`.
        **options: More arguments of `weightfold.train.fit`.
    """
    from weightfold.data import load
    from weightfold.train import fit, load_teacher

    dataset = load(cell.data, data_root)
    teacher = None
    if cell.teacher is not None:
        run(cell.teacher, root, data_root=data_root, progress=progress)
        weights = root / cell.teacher.folder / "last.safetensors"
        teacher = load_teacher(build(cell.teacher, dataset), weights)
    return fit(
        build(cell, dataset),
        dataset,
        cell.recipe,
        folder=root / cell.folder,
        seed=cell.seed,
        teacher=teacher,
        distillation=cell.distillation,
        progress=progress,
        about={"model": cell.model, "variant": cell.variant, "data": cell.data},
        **options,
    )
