"""A cell: one network trained once, named by everything that defines it. Imports no torch."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from weightfold.tasks.distillation import Distillation
from weightfold.train.progress import Progress, Tell
from weightfold.train.recipe import Recipe

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
    def title(self) -> str:
        """What is being trained, in a few words."""
        return f"{self.model} {self.variant} seed {self.seed}"

    @property
    def before(self) -> "Cell | None":
        """The cell that must be finished first."""
        return self.teacher

    @property
    def folder(self) -> str:
        """Name of the run's folder, readable and unique."""
        parts = (self.model, self.variant, self.data, f"seed{self.seed}", self.key)
        return "_".join("".join(c if c.isalnum() or c in "-.+" else "-" for c in p) for p in parts)

    def over(self, seeds: int) -> "tuple[Cell, ...]":
        """This cell with each of the seeds 0 to seeds - 1."""
        return tuple(replace(self, seed=seed) for seed in range(seeds))

    def finished(self, root: Path) -> "History | None":
        """The record of its run below `root`; None if it has not come to its end."""
        from weightfold.train import checkpoint

        return checkpoint.finished(root / self.folder)

    def train(
        self,
        root: Path,
        *,
        data_root: Path | None = None,
        progress: bool | Tell = True,
    ) -> "History":
        """Train it in its folder below `root`, or go on where it stopped; a no-op once finished.

        Args:
            root: Folder of the runs; holds the teacher's.
            data_root: Data folder; None: $WEIGHTFOLD_DATA.
            progress: True for a progress bar; or a function told of each epoch.
        """
        from weightfold.data import load
        from weightfold.tasks.registry import build as build_task
        from weightfold.train import Options, fit, load_teacher

        dataset = load(self.data, data_root)
        teacher = None
        if self.teacher is not None:
            weights = root / self.teacher.folder / "last.safetensors"
            teacher = load_teacher(build(self.teacher, dataset), weights)
        return fit(
            build(self, dataset),
            build_task("classify", dataset, teacher=teacher, distillation=self.distillation),
            self.recipe,
            folder=root / self.folder,
            seed=self.seed,
            progress=by_epoch(progress, self.recipe.epochs),
            options=Options(
                about={"model": self.model, "variant": self.variant, "data": self.data}
            ),
        )


class AnyCell(Protocol):
    """What `run` and `weightfold.lab.runner` need of a cell: hashable, and made of plain values."""

    @property
    def title(self) -> str:
        """What is being trained, in a few words."""
        ...

    @property
    def folder(self) -> str:
        """Name of the run's folder, readable and unique."""
        ...

    @property
    def before(self) -> "AnyCell | None":
        """The cell that must be finished first."""
        ...

    def finished(self, root: Path) -> Any:
        """The record of its run below `root`; None if it has not come to its end."""
        ...

    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | Tell = True
    ) -> Any:
        """Train it in its folder below `root`, or go on where it stopped; a no-op once finished."""
        ...


def by_epoch(progress: bool | Tell, epochs: int) -> "bool | Callable[[Row], None]":
    """What `fit` takes, of what a cell takes.

    Args:
        progress: True for a progress bar; or a function told of each epoch.
        epochs: Of the run.
    """
    if isinstance(progress, bool):
        return progress
    return lambda row: progress(
        Progress(row.epoch, epochs, f"test accuracy {row['test_accuracy']:.2%}")
    )


def build(cell: Cell, dataset: "Dataset") -> "nn.Module":
    """The cell's network with its seeded initial weights."""
    from weightfold.lab.variants import make_net

    return make_net(
        cell.model,
        cell.variant,
        seed=cell.seed,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
    )


def run(
    cell: AnyCell,
    root: Path,
    *,
    data_root: Path | None = None,
    progress: bool | Tell = True,
) -> Any:
    """Train a cell and those that must be finished before it; finished ones are left as they are.

    Args:
        cell: What to train.
        root: Folder of the runs.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        progress: True for bars; or a function told how far they are.

    Returns:
        The record of the cell's run.
    """
    if cell.before is not None and cell.before.finished(root) is None:
        run(cell.before, root, data_root=data_root, progress=progress)
    return cell.train(root, data_root=data_root, progress=progress)
