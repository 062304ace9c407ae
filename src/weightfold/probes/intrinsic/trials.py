"""The networks that a search for the intrinsic dimension trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from weightfold.core.select import Where, select_tensors
from weightfold.methods.mask.verb import mask
from weightfold.methods.subspace.projections import Kind
from weightfold.methods.subspace.verb import subspace
from weightfold.probes.intrinsic.finding import Trained
from weightfold.probes.intrinsic.options import IntrinsicOptions
from weightfold.probes.models import Model, net_of
from weightfold.tasks.task import Task
from weightfold.train.history import History, Row
from weightfold.train.progress import Progress, ProgressCallback
from weightfold.train.recipe import Recipe
from weightfold.train.seeding import mixed_seed
from weightfold.train.together import SIDE_BY_SIDE, Run, fit_together


def plain(net: Model, where: Where, seed: int) -> nn.Module:
    """The network of a seed, of which only the tensors that `where` chooses are trained."""
    made = net_of(net, seed)
    chosen = select_tensors(made, where)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(name in chosen)
    return made


def nested(net: nn.Module, dim: int, width: int, kind: Kind, seed: int) -> nn.Module:
    """`net` in `dim` of `width` dimensions: the same width, whatever `dim`, is one architecture.

    theta = theta0 + P (m * psi) with P of `width` columns and m 1 at `dim` of them, drawn from the
    seed; those of a smaller `dim` are among them. They are scattered because the leading columns
    of a Walsh-Hadamard matrix repeat themselves along its rows.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(width, generator=generator) < dim
    return mask(subspace(net, width, kind=kind, seed=seed), {"charts.0.psi": chosen})


@dataclass
class Trials:
    """Trains the plain network and its subspaces, with every seed.

    Attributes:
        net: As given to the probe, like `options`, `recipe`, `seeds` and `device`.
        task: What is learnt.
        part: The part of its data that is measured.
        side_by_side: Runs that are trained as one batch; 1: one after another.
        folder: Holds the runs; None: nothing is written.
        show: Called with how far it is.
        trained: The subspaces trained so far.
    """

    net: Model
    options: IntrinsicOptions
    task: Task
    part: str
    recipe: Recipe
    seeds: tuple[int, ...]
    side_by_side: int
    folder: Path | None
    device: torch.device | str
    show: ProgressCallback
    trained: list[Trained] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._completed = self._total = 0

    def plain(self) -> tuple[Trained, ...]:
        """The plain network, once for each seed."""
        return tuple(self._train({(None, seed): self._plain(seed) for seed in self.seeds}))

    def subspaces(self, dims: Sequence[int]) -> dict[int, tuple[float | None, ...]]:
        """Train in subspaces of these dimensions; the values of the seeds."""
        width = max(dims)
        found = self._train({(d, s): self._subspace(d, s, width) for d in dims for s in self.seeds})
        self.trained += found
        return {d: tuple(run.value for run in found if run.dim == d) for d in dims}

    def _plain(self, seed: int) -> nn.Module:
        return plain(self.net, self.options.where, seed)

    def _subspace(self, dim: int, seed: int, width: int) -> nn.Module:
        net = self._plain(seed)
        # Other draws than those of the initial weights, which may come from the same generator.
        drawn = mixed_seed("subspace", seed) % 2**31
        if self.side_by_side > 1:
            return nested(net, dim, width, self.options.kind, drawn)
        return subspace(net, dim, kind=self.options.kind, seed=drawn)

    def _train(self, starts: dict[tuple[int | None, int], nn.Module]) -> list[Trained]:
        names = {
            (f"plain-seed{s}" if d is None else f"{self.options.kind}-d{d}-seed{s}"): (d, s)
            for d, s in starts
        }
        points = 1 + self.recipe.epochs
        self._total = self._completed + points * len(starts)

        def shown(name: str, row: Row) -> None:
            self._completed += 1
            dim, seed = names[name]
            what = "all weights" if dim is None else f"d = {dim}"
            text = self.task.measure.text(row.get(self._column))
            self._tell(f"{what}, seed {seed}, step {row.step}: {text}")

        before = self._completed
        self._tell("")
        runs = fit_together(
            {name: Run(starts[key], self.task, key[1]) for name, key in names.items()},
            self.recipe,
            folder=self.folder,
            together=self.side_by_side,
            device=self.device,
            progress=shown,
            options=replace(SIDE_BY_SIDE, measure=(self.part,)),
        )
        # Finished runs are read, failed ones end early: neither is heard to its end.
        self._completed = before + points * len(starts)
        self._tell("")
        return [self._result(*names[name], run) for name, run in runs.items()]

    @property
    def _column(self) -> str:
        part = "train_eval" if self.part == "train" else self.part
        return f"{part}_{self.task.measure.name}"

    def _tell(self, text: str) -> None:
        self.show(Progress(self._completed, self._total, text))

    def _result(self, dim: int | None, seed: int, run: History) -> Trained:
        start = run.rows[0][self._column]
        if run.failed:
            return Trained(dim, seed, start, None, failed=run.failed)
        after = [row[self._column] for row in run.rows[1:]]
        best = self.task.measure.best(after)
        return Trained(dim, seed, start, after[-1], after[best], 1 + best)
