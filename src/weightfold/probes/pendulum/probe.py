"""The probe: policies of rising dimension, each kept in a file."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, Unpack

from weightfold.core.arguments import gathered
from weightfold.files import locked
from weightfold.hints import check_arguments
from weightfold.probes.pendulum.finding import PendulumDimension, Trial
from weightfold.probes.pendulum.options import PendulumKeywords, PendulumOptions
from weightfold.probes.pendulum.search import TASK, count_name, gymnasium, train
from weightfold.probes.registry import register_probe
from weightfold.records import read_record, write_record
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds


@register_probe(
    "pendulum",
    "the intrinsic dimension of balancing a pole on a cart, with a policy of its own",
    finds=PendulumDimension,
    options=PendulumOptions,
    networks=False,
)
def pendulum_dimension(
    *,
    seeds: int | Sequence[int] = 3,
    folder: Path | str | None = None,
    progress: bool | ProgressCallback = True,
    **options: Unpack[PendulumKeywords],
) -> PendulumDimension:
    """Train a policy to balance a pole on a cart in random subspaces of rising dimension.

    The policy is a network 4-20-20-2 (ReLU, He's normal weights, biases 0) that pushes to the side
    of the larger output. It is trained by the cross-entropy method with noise (Szita and Lorincz
    2006), which moves psi of `weightfold.subspace` alone: a generation of policies is drawn from a
    normal distribution with a spread of its own in each coordinate, each policy plays some
    episodes, and mean and spread of the best eighth make the next distribution. The last mean is
    the policy that is tested. At first the mean is 0 and the spread makes psi as long as the first
    weights, in every dimension; a tenth of it is added to later spreads, less each generation and
    none from half of them. The policy with all parameters, which the others are compared with, is
    trained likewise. All this was fixed by looking at that policy alone.

    Args:
        seeds: Of first weights, subspaces, search and episodes; a count n: 0 to n - 1.
        folder: Keeps each policy's result, so that the same call goes on after a stop; None keeps
            nothing.
        progress: Whether to show a bar, or who is told instead.
        **options: Fields of `PendulumOptions`, or one as `options`.

    Raises:
        ImportError: gymnasium is not installed.
        ValueError: An argument is out of range.
        FileExistsError: `folder` holds results of other arguments, or another process is at it.
    """
    check_arguments(pendulum_dimension, folder=folder, progress=progress)
    chosen, seeds = gathered(PendulumOptions, options), as_seeds(seeds)
    budget = chosen.budget
    gymnasium()
    tasks = [(dim, seed) for dim in (*sorted(chosen.dims), None) for seed in seeds]
    trials = []
    runs = None if folder is None else Path(folder) / "runs"
    with (
        nullcontext() if runs is None else locked(runs),
        progress_bar(progress, "pendulum") as show,
    ):
        for done, (dim, seed) in enumerate(tasks):
            name = "all parameters" if dim is None else f"{dim} coordinates"
            text = f"{name}, seed {seed}"

            def told(share: float, done: int = done, text: str = text) -> None:
                show(Progress(done + share, len(tasks), text))

            told(0)
            trials.append(_trial(dim, seed, budget, runs, told))
        show(Progress(len(tasks), len(tasks)))
    return PendulumDimension(
        trials=tuple(trials),
        threshold=chosen.threshold,
        notes=(
            "The dimension is the geometric mean of the smallest that each seed learns in. A first "
            "success leans to luck; the dimension from which on every seed learns leans the other "
            "way.",
            "Policies were trained by the cross-entropy method, which is our choice; the authors' "
            "code trains by Q-learning, and their task may have had shorter episodes.",
            f"A policy's budget is {chosen.generations} generations of {chosen.population} "
            f"policies with {chosen.episodes} episodes each; its return is the mean of "
            f"{chosen.test_episodes} other episodes of {TASK}.",
        ),
        sessions=(session(),),
    )


class Kept(TypedDict):
    """What the file of a policy holds."""

    budget: dict[str, int]
    trial: Trial


def _trial(
    dim: int | None,
    seed: int,
    budget: Mapping[str, int],
    runs: Path | None,
    show: Callable[[float], None],
) -> Trial:
    """The policy's result: read from its file, or found and written there."""
    path = None
    if runs is not None:
        path = runs / f"{count_name(dim)}-seed-{seed}.json"
        if path.exists():
            kept = read_record(path, Kept)
            if kept["budget"] != budget:
                raise FileExistsError(
                    f"folder={str(runs.parent)!r} holds results of another budget: {path.name} has "
                    f"{kept['budget']}, now it is {dict(budget)}. Choose another folder, or remove "
                    "this one"
                )
            return Trial(**kept["trial"])
    score, generations = train(dim, seed, show=show, **budget)
    trial = Trial(dim, seed, score, generations)
    if path is not None:
        write_record(path, {"budget": dict(budget), "trial": asdict(trial)})
    return trial
