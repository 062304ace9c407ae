"""The answers of an inspection: what each probe found, in a line, and how sure that is."""

from collections.abc import Callable, Mapping
from typing import Any

from weightfold.lab.budget import Pace, Sizes
from weightfold.probes.finding import Finding
from weightfold.probes.intrinsic.finding import IntrinsicDimension
from weightfold.probes.layers.finding import LayerReset
from weightfold.probes.memory.finding import Memorization
from weightfold.probes.memory.verdicts import RANDOM, TRUE
from weightfold.probes.tickets.finding import LotteryTicket
from weightfold.report.numbers import count
from weightfold.report.page import Section, Table

Answer = tuple[str, str]
"""What was found, and how sure that is."""

TITLES = {
    "intrinsic-dimension": "Parameters and intrinsic dimension",
    "lottery-ticket": "Prunability",
    "layer-reset": "Critical layers",
    "memorization": "Learning and memorization",
}
"""Probe -> heading of its section, in the order of the page."""


def answers(
    findings: Mapping[str, Finding],
    left_out: Mapping[str, str],
    sizes: Mapping[str, Sizes],
    pace: Pace,
    lr: float | None,
) -> Section:
    """What stands first on the page of an inspection: a row a question.

    Args:
        findings: Probe -> what it found.
        left_out: Probe -> why it found nothing, of those without a finding.
        sizes: Probe -> what it was run with.
        pace: Of the network.
        lr: Learning rate of sgd; None: each recipe's own.
    """
    rows = [["parameters", f"{pace.parameters:,} weights", "exact", ""]]
    for name in TITLES:
        if name in findings:
            found = findings[name]
            answer, certainty = _ANSWERS[name](found)
            if found.doubt:
                answer, certainty = "not told", found.doubt
            rows.append([_QUESTIONS[name], answer, certainty, sizes[name].text])
        else:
            rows.append([_QUESTIONS[name], left_out[name], "", ""])
    columns = ["", "answer", "how sure", "measured on"]
    return Section("Summary", _introduction(pace, lr), Table(columns, rows))


def _introduction(pace: Pace, lr: float | None) -> str:
    rate = "each recipe's own learning rate, for want of time to try several"
    if lr is not None:
        rate = (
            f"learning rate {lr:g}, the largest of several that did well in a few steps of the "
            "plain network"
        )
    step = 1e3 * (pace.step + 32 * pace.example)
    return (
        f"A training step of 32 examples takes {step:.3g} ms here; the sizes below were chosen so "
        "that all fits the time that was given. With fewer examples or epochs than you train with, "
        "numbers differ from those of a full training: give more time for better ones.\n\n"
        f"Networks are trained from their start for each question, by sgd with {rate}; for pruning "
        "by Adam."
    )


_QUESTIONS = {
    "intrinsic-dimension": "parameters needed (intrinsic dimension)",
    "lottery-ticket": "weights that can be pruned",
    "layer-reset": "critical layers",
    "memorization": "learns noise by heart",
}


def _dimension(found: Any) -> Answer:
    assert isinstance(found, IntrinsicDimension)
    seeds = count(len(found.seeds), "seed")
    if found.dimension is None:
        return f"above {found.tried:,}", f"the largest number tried, {seeds}"
    bound = "at most " if found.bounded_above else "about "
    share = 100 * found.dimension / found.parameters
    answer = f"{bound}{found.dimension:,.0f} of {found.parameters:,} ({share:.2g}%)"
    if found.interval is None:
        return answer, f"no interval, {seeds}"
    low, high = found.interval
    return answer, f"95% {low:,.0f} to {high:,.0f}, {seeds}"


def _tickets(found: Any) -> Answer:
    assert isinstance(found, LotteryTicket)
    results = found.results
    if not results.levels:
        return "unknown", "no ticket was trained to the end"
    smallest, name, step = found.smallest, found.measure.name, found.scale.step(found.tolerance)
    if smallest is None:
        answer = f"none: {name} gets worse by more than {step}"
        level = results.levels[0]
    else:
        level = next(n for n in results.levels if results.remaining(n) == smallest)
        answer = f"{1 - smallest:.0%} of them, for at most {step} of {name}"
    above = results.difference("full", level, "value")
    if above is None:
        return answer, ""
    gain = found.scale.difference(above)
    return answer, f"with {results.remaining(level):.0%} left, {name} {gain}"


def _layers(found: Any) -> Answer:
    assert isinstance(found, LayerReset)
    verdicts = {unit.name: found.verdict(unit.name) for unit in found.units}
    critical = [name for name, verdict in verdicts.items() if verdict == "critical"]
    undecided = sum(verdict == "undecided" for verdict in verdicts.values())
    named = f": {', '.join(critical)}" if critical else ""
    answer = f"{len(critical)} of {len(verdicts)}{named}"
    return answer, f"{undecided} undecided, {count(len(found.seeds), 'network')}; {found.policy}"


def _memorization(found: Any) -> Answer:
    assert isinstance(found, Memorization)
    results = found.results
    fits = results.of(RANDOM)
    if not fits:
        return "unknown", "no network with random labels came to its end"
    seeds = count(len(fits), "seed")
    trained = f"true labels after {results.epochs(TRUE)}" if results.of(TRUE) else ""
    if results.reached(RANDOM):
        answer = f"yes: random labels after {results.epochs(RANDOM)} epochs, {trained}"
    else:
        answer = (
            f"not in {found.epochs} epochs: {results.accuracy(RANDOM, 'train')}% of random labels, "
            f"{trained}"
        )
    return answer, f"mean and spread, {seeds}" if len(fits) > 1 else seeds


_ANSWERS: Mapping[str, Callable[[Any], Answer]] = {
    "intrinsic-dimension": _dimension,
    "lottery-ticket": _tickets,
    "layer-reset": _layers,
    "memorization": _memorization,
}
