"""The probe `hessian`: the curvature where a network is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch

from weightfold.core.arguments import gathered
from weightfold.data.pairs import Data
from weightfold.probes.hessian.finding import Curvature, Layer, Point
from weightfold.probes.hessian.krylov import Eigenvalue, NotConverged, Which
from weightfold.probes.hessian.options import CurvatureKeywords, CurvatureOptions
from weightfold.probes.hessian.verb import Hessian, hessian
from weightfold.probes.models import Model, net_of
from weightfold.probes.objective import check_fits
from weightfold.probes.registry import register_probe
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds
from weightfold.train.together import device_of


@register_probe(
    "hessian",
    "how curved the loss is where a network stands: eigenvalues, spectrum, trace",
    finds=Curvature,
    options=CurvatureOptions,
)
def curvature(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    **options: Unpack[CurvatureKeywords],
) -> Curvature:
    """The curvature of the training loss at a network's weights, in eval mode: `wf.hessian`.

    Args:
        net: A module, or a function that makes the network of a seed; left unchanged.
        data: A task; data alone is to be classified.
        seeds: Of the networks; of a module the first alone counts.
        folder: Not needed: nothing is kept between calls.
        device: To compute on; "auto": an accelerator if there is one.
        progress: As for `progress_bar`.
        **options: Fields of `CurvatureOptions`, or one as `options`.

    Raises:
        TypeError: `net` is of no such kind, or there is no such option.
        ValueError: An argument is out of range, or the loss is random or not finite.
    """
    chosen, task = gathered(CurvatureOptions, options), as_task(data)
    device = device_of(device)
    chosen_seeds = as_seeds(seeds)[: 1 if isinstance(net, torch.nn.Module) else None]
    points, notes, matrices = [], [], []
    with progress_bar(progress, Curvature.probe) as show:
        for done, seed in enumerate(chosen_seeds):
            made = net_of(net, seed).eval()
            check_fits(made, task)
            h = hessian(
                made.to(device),
                task,
                coordinates=chosen.coordinates,
                matrix=chosen.matrix,
                bn=chosen.bn,
                examples=chosen.examples,
            )
            matrices.append(h)
            show(Progress(done, len(chosen_seeds), f"seed {seed}"))
            points.append(_point(h, chosen, seed, notes))
    first = matrices[0]
    return Curvature(
        network=f"{type(first.objective.net).__name__} ({first.size:,} coordinates)",
        data=task.dataset.name,
        statement=first.objective.statement,
        matrix=chosen.matrix,
        tol=chosen.tol,
        points=tuple(points),
        notes=tuple(notes),
        sessions=(session(device),),
    )


def _point(h: Hessian, chosen: CurvatureOptions, seed: int, notes: list[str]) -> Point:
    def top(of: Hessian, k: int, which: Which, what: str) -> tuple[Eigenvalue, ...]:
        try:
            return of.eigenvalues(
                min(k, of.size), which=which, tol=chosen.tol, products=chosen.products
            )
        except NotConverged as error:
            notes.append(f"Seed {seed}, {what}: {error}.")
            return error.found

    loss, gradient = h.objective.gradient()
    layers = h.layers() if chosen.layers else {}
    return Point(
        seed=seed,
        loss=loss,
        gradient=gradient.norm().item(),
        largest=top(h, chosen.k, "largest", "whole network"),
        smallest=top(h, 1, "smallest", "whole network")[0],
        trace=h.trace(products=max(6, chosen.vectors * chosen.steps // 2)),
        spectrum=h.spectrum(vectors=chosen.vectors, steps=chosen.steps),
        layers=tuple(
            Layer(name or "itself", block.size, top(block, 1, "largest", name)[0])
            for name, block in layers.items()
        ),
    )
