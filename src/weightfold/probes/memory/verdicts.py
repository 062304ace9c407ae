"""What Zhang et al. 2017 and Arpit et al. 2017 claim, and whether the networks bear it out."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from statistics import fmean, linear_regression

from weightfold.probes.memory.fits import Fits, Line
from weightfold.report.numbers import difference, mean_and_spread
from weightfold.report.statistics import Judged, judge, judge_within, paired, summarize

NEAR_CHANCE = 0.02
"""Test accuracy at most this far from chance counts as chance; ours. Zhang et al.'s networks that
were trained on random labels lie between 9.8% and 10.6%."""

TRUE, RANDOM = Line("true"), Line("random-labels")


@dataclass(frozen=True)
class Verdict:
    """What a claim came to.

    Attributes:
        claim: In our words.
        holds: "holds": on the claim's side with the whole 95% interval over seeds; "does not
            hold": on the other with the whole interval; else "undecided".
        numbers: What decides it.
    """

    claim: str
    holds: Judged
    numbers: str

    @property
    def text(self) -> str:
        """In a sentence."""
        return f"{self.claim}: {self.holds} ({self.numbers})."


def verdicts(fits: Fits, chance: float) -> Iterator[Verdict]:
    """Those claims that the networks can decide.

    Args:
        fits: The networks.
        chance: Accuracy of guessing.
    """
    plain = [line for line in fits.lines if not line.variant]
    if plain:
        yield _all_fitted(fits, plain)
    if fits.of(RANDOM):
        yield _at_chance(fits, chance)
    if fits.of(TRUE) and fits.of(RANDOM):
        yield _later(fits)
        critical = {line: _critical(fits, line) for line in (TRUE, RANDOM)}
        if all(critical.values()):
            yield _more_critical(critical[TRUE], critical[RANDOM])
    for condition in dict.fromkeys(line.condition for line in plain):
        lines = fits.noises(condition)
        if condition != "true" and len(lines) > 2:
            yield _grows(fits, condition, lines)
    regularised = [n for n in fits.lines if n.variant and n.condition == RANDOM.condition]
    if regularised:
        yield _not_prevented(fits, regularised)


def _all_fitted(fits: Fits, lines: list[Line]) -> Verdict:
    missed = [line for line in lines if not fits.reached(line)]
    return Verdict(
        "Every condition is fitted to zero training error",
        "undecided" if missed else "holds",  # more epochs might
        "; ".join(
            f"{line.title} {fits.epochs(line)} epochs, training accuracy "
            f"{fits.accuracy(line, 'train')}%"
            for line in missed
        )
        or f"{len(lines)} conditions",
    )


def _at_chance(fits: Fits, chance: float) -> Verdict:
    values = [fit.test_accuracy for fit in fits.of(RANDOM).values()]
    found = paired(values, [chance] * len(values))
    return Verdict(
        "After training on random labels the test accuracy is that of chance, "
        f"within {100 * NEAR_CHANCE:g} points",
        judge_within(found, NEAR_CHANCE),
        f"{fits.accuracy(RANDOM, 'test')}%, chance {chance:.2%}, difference "
        f"{difference(found, unit='points', factor=100)}",
    )


def _later(fits: Fits) -> Verdict:
    true, random = fits.of(TRUE), fits.of(RANDOM)
    # Where true labels were not fitted, or from the start, nothing bounds the ratio from below.
    seeds = [s for s in true if s in random and true[s].zero_epoch]
    claim = "Random labels are fitted later than true ones"
    if not seeds:
        return Verdict(claim, "undecided", f"true labels {fits.epochs(TRUE)} epochs")
    found = paired(
        [log(random[s].at_least) for s in seeds],
        [log(true[s].at_least) for s in seeds],
    )
    bounded = any(random[s].zero_epoch is None for s in seeds)
    times = f"{'at least ' if bounded else ''}{exp(found.mean):.2f} times"
    text = f"{fits.epochs(RANDOM)} epochs against {fits.epochs(TRUE)}, {times}"
    if found.low is not None and found.high is not None:
        text += f" as many, 95% [{exp(found.low):.2f}, {exp(found.high):.2f}], {found.n} seeds"
    holds = judge(found)
    return Verdict(claim, "undecided" if bounded and holds == "does not hold" else holds, text)


def _critical(fits: Fits, line: Line) -> dict[int, float]:
    return {s: 100 * f.critical for s, f in fits.of(line).items() if f.critical is not None}


def _more_critical(true: dict[int, float], random: dict[int, float]) -> Verdict:
    seeds = [s for s in true if s in random]
    claim = "Trained on random labels, more test examples are critical than trained on true ones"
    if not seeds:
        return Verdict(claim, "undecided", "no seed has both")
    a, b = [random[s] for s in seeds], [true[s] for s in seeds]
    found = paired(a, b)
    text = f"{mean_and_spread(summarize(a), 1)}% against {mean_and_spread(summarize(b), 1)}%"
    return Verdict(claim, judge(found), f"{text}, {difference(found, unit='points')}")


def _grows(fits: Fits, condition: str, lines: list[Line]) -> Verdict:
    seeds = [
        s
        for s in fits.of(lines[0])
        if all(s in fits.of(line) and fits.of(line)[s].at_least for line in lines)
    ]
    claim = f"The more noise, the later it is fitted ({condition.replace('-', ' ')})"
    numbers = ", ".join(f"{line.noise:.0%}: {fits.epochs(line)}" for line in lines)
    if not seeds:
        return Verdict(claim, "undecided", numbers)
    epochs = {line: {s: fits.of(line)[s].at_least for s in seeds} for line in lines}
    noise = [line.noise for line in lines]
    slopes = [
        linear_regression(noise, [log(epochs[line][s]) for line in lines]).slope for s in seeds
    ]
    holds = judge(paired(slopes, [0.0] * len(slopes)))
    means = [fmean(epochs[line].values()) for line in lines]
    if holds == "holds" and any(b < a for a, b in pairwise(means)):
        holds = "undecided"
    # Of times that are bounds only the last one's is no matter, and that only if they rise to it.
    bounded = [line for line in lines if not fits.reached(line)]
    if bounded and (holds != "holds" or bounded != lines[-1:]):
        holds = "undecided"
    return Verdict(claim, holds, f"epochs at {numbers}")


def _not_prevented(fits: Fits, lines: list[Line]) -> Verdict:
    return Verdict(
        "Explicit regularisation does not keep the network from fitting random labels",
        "holds" if all(fits.reached(line) for line in lines) else "undecided",
        "; ".join(
            f"{line.variant} {fits.epochs(line)} epochs, training accuracy "
            f"{fits.accuracy(line, 'train')}%"
            for line in lines
        ),
    )
