"""How large each probe of an inspection may be, so that all fit a time budget. Imports no torch."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

LADDER = (30_000, 20_000, 10_000, 5_000, 2_000, 1_000, 500, 200)
"""Numbers of training examples that are tried, after all of them."""

WISHES = ((3, 5_000), (2, 2_000), (1, 1_000), (1, 200))
"""(seeds, least training examples), the best first; less data counts as enough if it is all."""

KEPT = (1, 2, 4, 8, 16, 32)
"""Epochs that layers are set back to, where there is time for all."""


@dataclass(frozen=True)
class Pace:
    """How fast a network is on this machine; times in seconds.

    Attributes:
        step: Of an optimizer step, whatever its batch.
        example: Added for each example of the batch.
        look: Of one example in eval mode.
        projection: Added to a step by training in a random subspace.
        parameters: Weights of the network that are trained.
        layers: Layers with weights.
        statistics: Whether it has running statistics, as of batch norm.
        train: Training examples there are.
        test: Test examples there are.
    """

    step: float
    example: float
    look: float
    projection: float
    parameters: int
    layers: int
    statistics: bool
    train: int
    test: int

    def epoch(self, sizes: "Sizes") -> float:
        """Seconds of training for one pass over the training set."""
        return sizes.steps * (self.step + self.example * sizes.batch_size)


@dataclass(frozen=True)
class Sizes:
    """What a probe is run with.

    Attributes:
        train: Training examples.
        test: Test examples.
        epochs: Of every network.
        batch_size: Examples in a step.
        seeds: How many.
        options: More arguments of the probe, JSON values.
        seconds: It is expected to take.
    """

    train: int
    test: int
    epochs: int
    batch_size: int
    seeds: int
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return ceil(self.train / self.batch_size)

    @property
    def text(self) -> str:
        """In words."""
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        examples = f"{self.train:,} training and {self.test:,} test examples"
        return f"{examples}, {self.epochs} epochs, {seeds}"


@dataclass(frozen=True)
class Demand:
    """What a probe of an inspection asks for.

    Attributes:
        seconds: What it takes on a network with some sizes.
        options: Its arguments, best first; the first that fit are taken.
        epochs: Of a network, at least; half of it where there is no time for more.
        steps: Optimizer steps of a network, likewise.
        batch_size: At most.
        share: Of the time that is left when its turn comes.
        most_train: Training examples, at most.
    """

    seconds: Callable[[Pace, Sizes], float]
    options: Callable[[Pace, Sizes], tuple[dict[str, Any], ...]]
    epochs: int
    steps: int
    batch_size: int
    share: float
    most_train: int = LADDER[0] * 100


def fit(demand: Demand, pace: Pace, seconds: float) -> tuple[Sizes | None, float]:
    """The largest sizes that take no longer than `seconds`.

    Args:
        demand: Of the probe.
        pace: Of the network.
        seconds: To be used.

    Returns:
        The sizes, None if nothing fits; and the seconds that the least sizes take.
    """
    for seeds, floor in WISHES:
        enough = min(floor, pace.train, demand.most_train)
        wanted = [s for s in _candidates(demand, pace, seeds, 1.0) if s.train >= enough]
        for sizes in zip(*(_with_options(demand, pace, one) for one in wanted), strict=True):
            for chosen in sizes:
                if chosen.seconds <= seconds:
                    return chosen, chosen.seconds
    *_, smallest = _candidates(demand, pace, 1, 0.5)
    *_, least = _with_options(demand, pace, smallest)
    return (least if least.seconds <= seconds else None), least.seconds


def _candidates(demand: Demand, pace: Pace, seeds: int, share: float) -> Iterator[Sizes]:
    """From the most training examples down."""
    most = min(pace.train, demand.most_train)
    for train in (most, *(n for n in LADDER if n < most)):
        batch = 16
        while batch * 2 <= min(demand.batch_size, train // 16):
            batch *= 2
        test = min(pace.test, max(200, min(train // 2, 5_000)))
        one = Sizes(train, test, 1, batch, seeds)
        epochs = ceil(share * max(demand.epochs, demand.steps / one.steps))
        yield replace(one, epochs=epochs)


def _with_options(demand: Demand, pace: Pace, sizes: Sizes) -> Iterator[Sizes]:
    for options in demand.options(pace, sizes):
        found = replace(sizes, options=options)
        yield replace(found, seconds=demand.seconds(pace, found))


def _training(pace: Pace, sizes: Sizes, measured: int) -> float:
    """Seconds of one plain network, measured on so many examples after each epoch."""
    return sizes.epochs * pace.epoch(sizes) + (sizes.epochs + 1) * measured * pace.look


def _reset_seconds(pace: Pace, sizes: Sizes) -> float:
    kept = [1, *(epoch for epoch in sizes.options["reset_to"] if epoch)]
    tests = 1 + pace.layers * (len(kept) + sizes.options["draws"])
    looked = sizes.test + (min(2_000, sizes.train) if pace.statistics else 0)
    return sizes.seeds * (_training(pace, sizes, sizes.test) + tests * looked * pace.look)


def _reset_options(pace: Pace, sizes: Sizes) -> tuple[dict[str, Any], ...]:
    bn = "recalibrate" if pace.statistics else "keep"
    kept = [epoch for epoch in KEPT if epoch < sizes.epochs]
    return tuple(
        {"bn": bn, "reset_to": reset_to, "draws": draws}
        for reset_to, draws in ((kept, 3), (kept[::2], 1), ([0], 1))
    )


def _memorization_seconds(pace: Pace, sizes: Sizes) -> float:
    lines = len(sizes.options["conditions"]) + len(sizes.options["fractions"])
    return lines * sizes.seeds * _training(pace, sizes, sizes.train + sizes.test)


def _memorization_options(pace: Pace, sizes: Sizes) -> tuple[dict[str, Any], ...]:
    conditions = ["true", "random-labels"]
    return tuple({"conditions": conditions, "fractions": f} for f in ([0.25, 0.5, 0.75], []))


def _tickets_seconds(pace: Pace, sizes: Sizes) -> float:
    networks = sizes.seeds * (1 + 3 * sizes.options["rounds"])
    looks = 1 + sizes.epochs * sizes.steps / sizes.options["every"]
    held_out = sizes.test + sizes.train / 10
    masked = 1.2  # a step with a mask over one without
    return networks * (masked * sizes.epochs * pace.epoch(sizes) + looks * held_out * pace.look)


def _tickets_options(pace: Pace, sizes: Sizes) -> tuple[dict[str, Any], ...]:
    every = max(1, sizes.epochs * sizes.steps // 25)
    return tuple(
        {"rounds": rounds, "fraction": fraction, "every": every}
        for rounds, fraction in ((7, 0.2), (4, 0.5), (2, 0.7))
    )


def _dimension_seconds(pace: Pace, sizes: Sizes) -> float:
    doublings = 6  # a guess: the answer is not known
    projected = sizes.epochs * sizes.steps * pace.projection
    return sizes.seeds * (doublings + 3) * (_training(pace, sizes, sizes.test) + projected)


def _dimension_options(pace: Pace, sizes: Sizes) -> tuple[dict[str, Any], ...]:
    start = max(16, pace.parameters // 2_048)
    return ({"start": start, "d_max": min(pace.parameters, 1_024 * start), "resolution": 0.3},)


DEMANDS: Mapping[str, Demand] = {
    "layer-reset": Demand(_reset_seconds, _reset_options, 12, 300, 128, 0.2),
    "memorization": Demand(
        _memorization_seconds, _memorization_options, 60, 1_000, 128, 0.25, most_train=2_000
    ),
    "lottery-ticket": Demand(_tickets_seconds, _tickets_options, 10, 300, 64, 0.4),
    "intrinsic-dimension": Demand(_dimension_seconds, _dimension_options, 12, 400, 128, 0.9),
}
"""The probes of an inspection in the order in which they are run, the quickest answers first."""
