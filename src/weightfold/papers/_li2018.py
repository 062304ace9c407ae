"""What the experiments on intrinsic dimension share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

from weightfold.lab.claims import Check
from weightfold.lab.experiment import SHARE, Estimate, Quantity
from weightfold.lab.measures import by_probe
from weightfold.lab.printed import read_paper
from weightfold.lab.probing import Probing, calling
from weightfold.lab.results import Results
from weightfold.lab.verdicts import Verdict, p_of, verdict
from weightfold.report.numbers import interval, number
from weightfold.report.statistics import Paired, judge, judge_within, paired
from weightfold.train.recipe import Recipe

PAPER = (
    "Li, Farkhoor, Liu and Yosinski, Measuring the Intrinsic Dimension of Objective Landscapes, "
    "ICLR 2018"
)
NUMBERS = read_paper(Path(__file__).with_name("li2018.toml"))

AUTHORS = Recipe(
    epochs=100,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=2e-4,
    decay_on="theta",
    schedule="constant",
    crop_padding=0,
    flip=False,
)
"""Of the authors' scripts for MNIST and CIFAR-10, FC and LeNet: 100 epochs, batch 128, Adam at
1e-3, and 1e-4 |theta|^2 added to the loss, a decay of 2e-4. Their beta2 is 0.99, ours 0.999."""

SGD = Recipe(epochs=100, lr=0.1, schedule="constant", crop_padding=0, flip=False)
"""Ours: momentum SGD at 0.1, which the authors have in their variants with shuffled data; without
their penalty on the weights."""

SMOKE_DATA = "digits,size=28,limit=256"
SMOKE = replace(SGD, epochs=5, batch_size=32)
SMOKE_SEARCH = {"start": 128, "resolution": 1.0}
SMOKE_DIFFERS = (
    "Everything: one seed, five epochs on 256 of scikit-learn's digits. This preset only shows "
    "that the experiment runs."
)


def intrinsic(
    model: str, data: str, recipe: Recipe, search: Mapping[str, Any] | None = None, **more: Any
) -> Probing:
    """The probe of a network and data; seeds are the preset's."""
    return calling("intrinsic-dimension", model, data, recipe=recipe, **(search or {}), **more)


def _dimension(records: Sequence[Any]) -> Estimate | None:
    found = records[0]
    if found.doubt:
        return None
    if found.dimension is None:
        return Estimate(found.tried, n=len(found.seeds), bound=">")
    low, high = found.interval or (None, None)
    known = [d for d in found.crossings.values() if d is not None]
    bound = "<" if found.bounded_above else ""
    return Estimate(found.dimension, low=low, high=high, n=len(known), bound=bound)


def _at(threshold: float, *, absolute: bool) -> Callable[[Sequence[Any]], Estimate | None]:
    """The dimension at a bar that the plain network clears, whatever the search's own was."""

    def of(records: Sequence[Any]) -> Estimate | None:
        found = records[0].at(threshold, absolute=absolute)
        return None if found.bar > found.baseline.mean else _dimension([found])

    return of


def _pendulum(records: Sequence[Any]) -> Estimate:
    found = records[0]
    if found.dimension is None:
        return Estimate(found.dims[-1], n=len(found.by_seed), bound=">")
    low, high = found.interval or (None, None)
    return Estimate(found.dimension, low=low, high=high, n=len(found.by_seed))


DIMENSION = Quantity(
    "dimension",
    "intrinsic dimension",
    over=by_probe({"intrinsic-dimension": _dimension, "pendulum": _pendulum}),
    digits=0,
    ratio=True,
)
RELATIVE = Quantity(
    "dimension",
    "dimension, 90% of the plain network",
    over=by_probe({"intrinsic-dimension": _at(0.9, absolute=False), "pendulum": _pendulum}),
    digits=0,
    ratio=True,
)
ABSOLUTE = Quantity(
    "absolute",
    "dimension, accuracy 0.90",
    over=by_probe({"intrinsic-dimension": _at(0.9, absolute=True)}),
    digits=0,
    ratio=True,
)


def _accuracy(records: Sequence[Any]) -> Estimate:
    found = records[0].baseline
    interval = paired([r.value for r in records[0].baselines if r.value is not None],
                      [0.0] * found.n)  # fmt: skip
    low, high = (None if end is None else 100 * end for end in (interval.low, interval.high))
    return Estimate(100 * found.mean, low=low, high=high, n=found.n)


ACCURACY = Quantity(
    "accuracy",
    "accuracy of all weights (%)",
    over=by_probe({"intrinsic-dimension": _accuracy}),
    within=SHARE,
)


def times(results: Results, a: str, b: str) -> Paired | None:
    """Log of a line's intrinsic dimension over another's, paired by seeds; None if not known.

    A dimension that was not reached counts as the largest that was tried, a bound from below.
    """
    both = [results.records(label) for label in (a, b)]
    if not all(both):
        return None
    (first,), (second,) = (map(_logarithms, records) for records in both)
    seeds = [seed for seed in first if seed in second]
    return paired([first[s] for s in seeds], [second[s] for s in seeds]) if seeds else None


def _logarithms(found: Any) -> dict[int, float]:
    """Seed -> log of its dimension; seeds left out for failed runs have none."""
    reached = found.dimension is not None
    return {s: log(d or found.tried) for s, d in found.crossings.items() if d or not reached}


def more(a: str, b: str, factor: float = 1.0) -> Check:
    """Line `a` has an intrinsic dimension more than `factor` times that of line `b`."""

    def judged(results: Results, ratio: Paired) -> Verdict:
        (bounded,) = results.records(b)
        if bounded.dimension is None:
            text = f"({b}): above {bounded.tried:,}, the largest that was tried"
            return verdict("undecided", text)
        holds, text = judge(ratio.minus(log(factor))), f"({a}) / ({b}): {describe_ratio(ratio)}"
        (bounding,) = results.records(a)
        if bounding.dimension is None:
            text += f"; at least, for ({a}) is above {bounding.tried:,}"
            holds = "undecided" if holds == "does not hold" else holds
        return verdict(holds, text, p_of(ratio) if factor == 1 else None)

    return _of_ratio(a, b, judged)


def _of_ratio(a: str, b: str, judged: Callable[[Results, Paired], Verdict]) -> Check:
    """A verdict on the ratio of two lines' dimensions, if both are known and can be told."""

    def check(results: Results) -> Verdict:
        ratio = times(results, a, b)
        if ratio is None:
            return verdict(None, f"({a}) / ({b}): not run")
        doubts = {label: results.records(label)[0].doubt for label in (a, b)}
        told = [f"({label}): {doubt}" for label, doubt in doubts.items() if doubt]
        return verdict("undecided", "; ".join(told)) if told else judged(results, ratio)

    return check


def equal(a: str, b: str, within: float = 1.5) -> Check:
    """Two lines' intrinsic dimensions differ by a factor of at most `within`, our tolerance."""

    def judged(results: Results, ratio: Paired) -> Verdict:
        text = f"({a}) / ({b}): {describe_ratio(ratio)}; equal is up to a factor of {within:g}"
        if any(results.records(label)[0].dimension is None for label in (a, b)):
            return verdict("undecided", f"{text}; one of them was not reached")
        return verdict(judge_within(ratio, log(within)), text)

    return _of_ratio(a, b, judged)


def describe_ratio(ratio: Paired) -> str:
    """A ratio of dimensions with its interval, from its logarithm."""
    if ratio.low is None or ratio.high is None:
        return f"{number(exp(ratio.mean))}, one seed"
    ends = interval(exp(ratio.low), exp(ratio.high))
    return f"{number(exp(ratio.mean))}, 95% {ends}, {ratio.n} seeds"
