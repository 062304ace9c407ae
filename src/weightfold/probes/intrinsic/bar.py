"""The bar that a search for the intrinsic dimension tries to reach, and what it must be."""

from dataclasses import replace
from math import sqrt
from statistics import fmean

from weightfold.probes.intrinsic.finding import IntrinsicDimension
from weightfold.tasks.task import Task


def trivial_value(task: Task, part: str) -> float:
    """What the trivial predictor gets on a part of the data."""
    examples = task.dataset.parts[part]
    return replace(task, dataset=replace(task.dataset, test=examples)).baseline()


def check_bar(found: IntrinsicDimension) -> None:
    """Refuse a bar that does not tell learning from not learning.

    Args:
        found: The plain networks and the bar.

    Raises:
        ValueError: As said.
    """
    if all(run.value is None for run in found.baselines):
        raise ValueError(
            f"the plain network failed with every seed: {found.baselines[0].failed}; lower the "
            "recipe's lr, or check the network"
        )
    measure, height, part = found.measure, found.height, found.part
    plain, bar, trivial = found.baseline.mean, found.bar, found.trivial
    asked = f"threshold={found.threshold}, absolute={found.absolute}"
    counted = measure.share and not measure.of_part
    error = sqrt(trivial * (1 - trivial) / found.examples) if counted else 0.0
    if height(plain) <= height(trivial) + 3 * error:
        hint = "" if part == "train" else "; for labels without meaning use metric='train'"
        spread = f", standard error {error:.4f}" if counted else ""
        raise ValueError(
            f"the plain network's {part} {measure.name} is {plain:.4g}, no better than the trivial "
            f"predictor's ({trivial:.4g}{spread}): it learns nothing with this recipe. Change lr "
            f"or epochs{hint}"
        )
    if height(bar) > height(plain):
        easier = "lower" if measure.higher_is_better else "higher"
        raise ValueError(
            f"{asked}: the plain network reaches {plain:.4g} only; give a {easier} threshold, or "
            "train longer"
        )
    if height(bar) <= height(trivial):
        least = trivial / plain if measure.higher_is_better and not found.absolute else trivial
        side = "above" if measure.higher_is_better else "below"
        raise ValueError(
            f"{asked}: the bar is {bar:.4g}, which the trivial predictor reaches ({trivial:.4g}); "
            f"give a threshold {side} {least:.3g}"
        )
    start = fmean(run.start for run in found.baselines if run.value is not None)
    if height(start) >= height(bar):
        raise ValueError(
            f"the weights that training starts from already have {measure.name} {start:.4g}, and "
            f"the bar is {bar:.4g}: nothing is to be learnt. Give an untrained network, or another "
            "threshold"
        )
