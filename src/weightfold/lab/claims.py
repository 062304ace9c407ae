"""A paper's claims, and whether our results bear them out.

A check gives a `Verdict` from results: one comparison, or several of which some did not run.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from weightfold.lab.results import Results
from weightfold.lab.verdicts import Comparison, Verdict, compared, p_of
from weightfold.report.numbers import difference, number
from weightfold.report.statistics import judge, paired
from weightfold.tasks.measure import ACCURACY, Measure

Check = Callable[[Results], Verdict]


def above(a: str, b: str, key: str) -> Check:
    """Line `a` has a measure higher than line `b`, paired by seed."""

    def check(results: Results) -> Verdict:
        printed = results.published(a, key), results.published(b, key)
        beside = ""
        if printed[0] and printed[1]:
            beside = f"; paper {number(printed[0].value - printed[1].value, signed=True)}"
        before = f"{results.measure(key).title}: ({a}) - ({b})"
        return Verdict((compared(results.difference(a, b, key), before, beside),))

    return check


def below(a: str, b: str, key: str) -> Check:
    """Line `a` has a measure lower than line `b`."""
    return above(b, a, key)


def higher(label: str, a: str, b: str, text: str) -> Check:
    """Of a line, measure `a` is higher than measure `b`, paired by seed."""

    def check(results: Results) -> Verdict:
        ours, others = results.values(label, a), results.values(label, b)
        seeds = sorted(ours.keys() & others.keys())
        found = paired([ours[s] for s in seeds], [others[s] for s in seeds]) if seeds else None
        return Verdict((compared(found, f"{label}: {text}"),))

    return check


def lower(
    a: str, b: str, of: Callable[[Any], dict[int, float]], text: str, factor: float = 1
) -> Check:
    """Line `a` has a lower figure than line `b`, each found by one call of a probe.

    Args:
        a: Label.
        b: Label.
        of: Finding -> seed -> figure; paired by the seeds of both.
        text: What the figure is.
        factor: Above 0, by which the difference is shown.
    """

    def check(results: Results) -> Verdict:
        found = [results.records(label) for label in (a, b)]
        if not all(found):
            return Verdict((compared(None, f"{text}: ({b}) - ({a})"),))
        ours, others = (of(records[0]) for records in found)
        seeds = sorted(ours.keys() & others.keys())
        rise = paired([others[s] for s in seeds], [ours[s] for s in seeds]) if seeds else None
        return Verdict((compared(rise and rise.scaled(factor), f"{text}: ({b}) - ({a})"),))

    return check


def told_apart(a: str, b: str, key: str, *, cells: str = "", by: Measure = ACCURACY) -> Check:
    """Whether two lines differ by a task's measure, on either side: a question, not a claim.

    Args:
        a: Label.
        b: Label.
        key: Of the measure.
        cells: Beginning of the keys of measures in which it is counted how often `a` is higher.
        by: The task's measure.
    """

    def check(results: Results) -> Verdict:
        found = results.difference(a, b, key)
        if found is None:
            return Verdict((Comparison(None, f"{a} - {b}: not run"),))
        apart = found.low is not None and found.high is not None and found.low * found.high > 0
        said = f"{a} and {b} cannot be told apart"
        if apart:
            said = f"{a} is {'more' if found.mean > 0 else 'less'} accurate than {b}"
            if by.name != ACCURACY.name:
                said = f"{a} has a {'higher' if found.mean > 0 else 'lower'} {by.name} than {b}"
        digits = results.measure(key).digits
        text = f"{said}: {difference(found, digits, unit='points' if by.share else '')}"
        keys = [m.key for m in results.experiment.measures if cells and m.key.startswith(cells)]
        if keys:
            each = [results.difference(a, b, one) for one in keys]
            higher_in = sum(d is not None and d.mean > 0 for d in each)
            text += f"; higher in {higher_in} of {len(keys)}"
        return Verdict((Comparison("holds" if apart else "undecided", text, found.p),))

    return check


def at_most(label: str, key: str, limit: float) -> Check:
    """A line has a measure of at most `limit`."""

    def check(results: Results) -> Verdict:
        values = list(results.values(label, key).values())
        room = paired([limit] * len(values), values) if values else None
        before = f"{results.measure(key).title}: {limit:g} - ({label})"
        return Verdict((compared(room, before),))

    return check


def all_of(*checks: Check) -> Check:
    """Every check's comparisons."""

    def check(results: Results) -> Verdict:
        return Verdict(tuple(c for one in checks for c in one(results).comparisons))

    return check


def across(pairs: Sequence[tuple[str, str]], prefix: str, *, or_equal: bool = False) -> Check:
    """In each pair line `a` is above `b` in the mean over all measures "prefix/..." of both.

    Cells, a measure of a pair each, are counted beside: in how many the mean over seeds is on the
    claim's side, in how many with the whole interval, and in how many the interval is against it;
    and the same at the best epoch, if there are measures "best/...".

    Args:
        pairs: Labels (a, b).
        prefix: Of the measures' keys.
        or_equal: The claim is "at least".
    """

    def check(results: Results) -> Verdict:
        found = tuple(_compare(results, [pair], prefix, or_equal) for pair in pairs)
        if len(pairs) == 1 or not any(one.judged for one in found):
            return Verdict(found)
        together = _compare(results, pairs, prefix, or_equal)
        return Verdict(found, replace(together, judged=None, p=None))

    return check


def _compare(
    results: Results, pairs: Sequence[tuple[str, str]], prefix: str, or_equal: bool
) -> Comparison:
    """All cells of pairs as one comparison."""
    keys = [m.key for m in results.experiment.measures if m.key.startswith(f"{prefix}/")]
    wanted = [(a, b, key) for a, b in pairs for key in keys]
    cells = [cell for cell in wanted if results.mean_difference([cell]) is not None]
    mean = results.mean_difference(cells)
    counts = _counts(results, cells, or_equal)
    best = {m.key for m in results.experiment.measures if m.key.startswith("best/")}
    if best:
        there = [(a, b, key.replace(f"{prefix}/", "best/", 1)) for a, b, key in cells]
        found = _counts(results, [cell for cell in there if cell[2] in best], or_equal)
        counts |= {f"{name}_best_epoch": found[name] for name in ("held", *_SPREAD)}
    paper = [x for a, b in pairs for x in published_differences(results, a, b, prefix)]
    if paper:
        counts["paper_held"] = sum(on_side(x, or_equal) for x in paper)
        counts["paper_cells"] = len(paper)
        counts["paper_difference"] = fmean(paper)
    told = "({}) - ({})".format(*pairs[0]) if len(pairs) == 1 else "all together"
    if mean is None:
        return Comparison(None, f"{told}: not run", counts=counts)
    text = (
        f"{told}, mean of {len(cells)}: {difference(mean)}; held in {counts['held']} of "
        f"{len(cells)}, {counts['clear']} clear, {counts['against']} against"
    )
    if paper:
        text += (
            f"; paper {number(counts['paper_difference'], signed=True)}, "
            f"{counts['paper_held']} of {len(paper)}"
        )
    equal = or_equal and abs(mean.mean) < 1e-9
    return Comparison("undecided" if equal else judge(mean), text, p_of(mean), counts)


_SPREAD = ("difference", "low", "high")


def _counts(
    results: Results, cells: Sequence[tuple[str, str, str]], or_equal: bool
) -> dict[str, Any]:
    """How many of (a, b, measure) are on the claim's side, and their mean with its interval."""
    found = [d for cell in cells if (d := results.mean_difference([cell])) is not None]
    mean = results.mean_difference(cells)
    return {
        "held": sum(on_side(d.mean, or_equal) for d in found),
        "clear": sum(d.low is not None and d.low > 0 for d in found),
        "against": sum(d.high is not None and d.high < 0 for d in found),
        "cells": len(found),
        "difference": mean and mean.mean,
        "low": mean and mean.low,
        "high": mean and mean.high,
    }


def on_side(value: float, or_equal: bool = False) -> bool:
    """Whether a difference, true up to rounding, is on a claim's side."""
    return value > 1e-9 or (or_equal and value > -1e-9)


def published_differences(results: Results, a: str, b: str, prefix: str) -> list[float]:
    """The paper's numbers of line `a` minus those of `b`, of the measures "prefix/..."."""
    ours, others = results.line(a).published, results.line(b).published
    keys = [key for key in ours if key.startswith(f"{prefix}/") and key in others]
    return [ours[key].value - others[key].value for key in keys]
