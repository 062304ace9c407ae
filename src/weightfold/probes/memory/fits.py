"""What became of each network that was trained on true or disturbed data."""

from collections.abc import Sequence
from dataclasses import dataclass

from weightfold.report.numbers import mean_and_spread
from weightfold.report.statistics import summarize

Curve = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Line:
    """What networks were trained on, and how.

    Attributes:
        condition: One of `weightfold.data.disturb.CONDITIONS`.
        fraction: Of the training set that is disturbed, in [0, 1].
        variant: Name of the variant; "" for the network and recipe of the call.
    """

    condition: str
    fraction: float = 1.0
    variant: str = ""

    @property
    def title(self) -> str:
        """In words."""
        part = "" if self.fraction == 1 else f" {100 * self.fraction:g}%"
        own = f", {self.variant}" if self.variant else ""
        return f"{self.condition.replace('-', ' ')}{part}{own}"

    @property
    def name(self) -> str:
        """As a file name."""
        part = "" if self.fraction == 1 else f"-{self.fraction:g}"
        return f"{self.condition}{part}{f'+{self.variant}' if self.variant else ''}"

    @property
    def noise(self) -> float:
        """Share of the training set that is noise."""
        return 0.0 if self.condition == "true" else self.fraction


@dataclass(frozen=True)
class Fit:
    """One network, trained until it made no error on its training set, or to the end.

    Accuracies are in [0, 1], measured in eval mode on the whole set.

    Attributes:
        line: What it was trained on, and how.
        seed: Of the noise, the order of the data and, with a factory, the weights.
        examples: Training examples.
        labels_changed: How many of their labels are not the data's own.
        inputs_changed: How many of their inputs.
        zero_epoch: Passes over the training set to the first measurement without a training error;
            None if there was none.
        zero_step: The same in optimizer steps.
        epochs: Passes it was trained for; with `zero_epoch` None that bound was tried.
        train_accuracy: At the end.
        test_accuracy: At the end.
        critical: Critical sample ratio on the test inputs at the end; None if not measured.
        seconds: Of training and measuring.
        curve: (epoch, training accuracy, test accuracy) at each measurement, from epoch 0.
    """

    line: Line
    seed: int
    examples: int
    labels_changed: int
    inputs_changed: int
    zero_epoch: float | None
    zero_step: int | None
    epochs: float
    train_accuracy: float
    test_accuracy: float
    critical: float | None
    seconds: float
    curve: Curve

    @property
    def at_least(self) -> float:
        """Epochs to zero training error, or the bound that was tried."""
        return self.epochs if self.zero_epoch is None else self.zero_epoch


class Fits:
    """All networks that came to their end, by line and seed.

    Args:
        fits: In the order in which their lines are shown.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        self._by_line: dict[Line, dict[int, Fit]] = {}
        for fit in fits:
            self._by_line.setdefault(fit.line, {})[fit.seed] = fit

    @property
    def lines(self) -> list[Line]:
        """Lines with at least one network."""
        return list(self._by_line)

    @property
    def variants(self) -> list[str]:
        """Names of the variants, "" first."""
        return sorted({line.variant for line in self.lines}, key=lambda name: name != "")

    def of(self, line: Line) -> dict[int, Fit]:
        """Seed -> network."""
        return self._by_line.get(line, {})

    def noises(self, condition: str) -> list[Line]:
        """The lines of a condition without variant, and of true data, by the share of noise."""
        lines = [n for n in self.lines if n.condition in ("true", condition) and not n.variant]
        return sorted(lines, key=lambda line: line.noise)

    def reached(self, line: Line) -> bool:
        """Whether every network of a line came to zero training error."""
        return all(fit.zero_epoch is not None for fit in self.of(line).values())

    def epochs(self, line: Line) -> str:
        """Epochs to zero training error: mean and spread, or the bounds that were tried."""
        fits = list(self.of(line).values())
        found = [fit.zero_epoch for fit in fits if fit.zero_epoch is not None]
        if len(found) == len(fits):
            return mean_and_spread(summarize(found), 1)
        bound = f"> {max(fit.epochs for fit in fits):g}"
        if not found:
            return bound
        rest = mean_and_spread(summarize(found), 1)
        return f"{bound} in {len(fits) - len(found)} of {len(fits)}, else {rest}"

    def accuracy(self, line: Line, part: str) -> str:
        """Final accuracy on "train" or "test" in percent: mean and spread."""
        values = [100 * getattr(fit, f"{part}_accuracy") for fit in self.of(line).values()]
        return mean_and_spread(summarize(values), 2)
