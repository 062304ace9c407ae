"""The survey's figure of the lottery ticket paper: how fast tickets learn, and how well."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightfold.lab.claims import Check
from weightfold.lab.experiment import Claim, Estimate, Experiment, Line, Preset, Quantity
from weightfold.lab.measures import by_probe
from weightfold.lab.printed import read_paper
from weightfold.lab.probing import Probing, calling
from weightfold.lab.results import Results
from weightfold.lab.run import Run
from weightfold.lab.verdicts import Comparison, Verdict, compared, p_of, verdict
from weightfold.report.numbers import difference
from weightfold.report.statistics import paired
from weightfold.train.recipe import Recipe

PAPER = (
    "Frankle and Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks, "
    "ICLR 2019"
)
NUMBERS = read_paper(Path(__file__).with_name("frankle2019.toml"))

# Sizes of the preset cpu.
CPU_TRIALS, CPU_TRIALS_CONV = 5, 3
CPU_LENET_DATA, CPU_LENET_STEPS, CPU_LENET_ROUNDS = "mnist,limit=13000", 2000, 8
CPU_VALIDATION = 3000
CPU_CONV_DATA, CPU_CONV_STEPS, CPU_CONV_ROUNDS = "cifar10,limit=6000", 300, 2
CPU_TEST, CPU_CONV_TEST = 2000, 1000
CPU_CONV_MODEL, CPU_CONV_RATE, CPU_CONV_VALIDATION = "conv2,width=0.25", 2e-3, 1000
CPU_CONV_PRUNING: dict[str, Any] = {
    "fraction": 0.36,
    "fractions": ("conv*.weight:0.19", "fc3.weight:0.19"),
}
"""Two of the paper's levels in one."""

ADAM = Recipe(
    epochs=1000,
    batch_size=60,
    optimizer="adamw",
    lr=1.2e-3,
    schedule="constant",
    crop_padding=0,
    flip=False,
)
"""Adam without decay at a constant rate; runs end after a number of steps."""

_LENET: dict[str, Any] = {"fraction": 0.2, "fractions": ("fc3.weight:0.1",)}
_PAPER = {"random_trials": 10, "validation": 5000}
"""The paper's ten random masks a level, and its 5,000 examples for early stopping; smaller presets
have a mask for each trial."""
_LEVELS = (0.513, 0.211)
"""Shares of weights that the paper's text and the survey's figure speak of."""
_NEAR = math.log(1.15)
"""How far, in the logarithm, a level may be from the share it stands for."""


def _tickets(
    model: str, data: str, recipe: Recipe, pruning: Mapping[str, Any], **more: Any
) -> Probing:
    return calling("lottery-ticket", model, data, recipe=recipe, **pruning, **more)


def _conv(name: str, lr: float, steps: int, conv: float) -> Line:
    """A convolutional network; only Conv-2 has a size for two cores."""
    pruning = {"fraction": 0.2, "fractions": (f"conv*.weight:{conv}", "fc3.weight:0.1")}
    recipe, row = replace(ADAM, lr=lr), f"Conv-{name[-1]}"
    paper = _tickets(name, "cifar10", recipe, pruning | _PAPER, steps=steps, rounds=15, every=100)
    runs: dict[str, Run] = {"paper": paper}
    if name == "conv2":
        runs["cpu"] = _tickets(
            CPU_CONV_MODEL,
            CPU_CONV_DATA,
            replace(ADAM, lr=CPU_CONV_RATE),
            CPU_CONV_PRUNING,
            steps=CPU_CONV_STEPS,
            rounds=CPU_CONV_ROUNDS,
            every=25,
            validation=CPU_CONV_VALIDATION,
            test_limit=CPU_CONV_TEST,
        )
    return Line(
        f"CIFAR-10: {row}",
        runs,
        NUMBERS.row("section 3", row),
        note="At cpu a quarter of the channels and units, 5,000 images and a tenfold learning rate."
        * ("cpu" in runs),
        seeds=CPU_TRIALS_CONV if "cpu" in runs else None,
    )


LENET = "MNIST: LeNet-300-100"


def _nearest(found: Any, share: float) -> int:
    """The level of a finding whose share of weights is nearest, in the logarithm."""
    results = found.results
    return min(results.levels, key=lambda n: abs(math.log(results.remaining(n) / share)))


def _speed(share: float) -> Callable[[Sequence[Any]], Estimate | None]:
    """Early-stopping iteration of the ticket over the full network's, trial by trial."""

    def of(records: Sequence[Any]) -> Estimate | None:
        results = records[0].results
        if not results.levels:
            return None
        level = _nearest(records[0], share)
        if abs(math.log(results.remaining(level) / share)) > _NEAR:
            return None
        ticket = results.values("ticket", level, "iteration")
        full = results.values("full", 0, "iteration")
        ratios = [ticket[s] / full[s] for s in ticket if full.get(s)]
        late = [bool(results.late(kind, level) & ticket.keys()) for kind in ("ticket", "full")]
        if not ratios or all(late):
            return None  # of two lower bounds the ratio says nothing
        found = Estimate.of(paired(ratios, [0.0] * len(ratios)))
        if not any(late):
            return found
        return Estimate(found.value, n=found.n, bound=">" if late[0] else "<")

    return of


def _gain(records: Sequence[Any]) -> Estimate | None:
    """Test accuracy at early stopping of the best level over the full network's, in points."""
    results = records[0].results
    differences = [results.difference("full", n, "value") for n in results.levels]
    known = [d for d in differences if d is not None]
    if not known:
        return None
    best = max(known, key=lambda d: d.mean)
    return Estimate.of(best.scaled(100))


def _smallest(records: Sequence[Any]) -> Estimate | None:
    found = records[0]
    if found.smallest is None:
        return None
    last = found.results.remaining(max(found.results.levels))
    return Estimate(100 * found.smallest, n=found.trials, bound="<" * (found.smallest == last))


def _measure(
    key: str, title: str, of: Callable[[Sequence[Any]], Estimate | None], digits: int = 2
) -> Quantity:
    return Quantity(key, title, over=by_probe({"lottery-ticket": of}), digits=digits)


MEASURES = (
    _measure("speed21", "early stop at 21% / full network's", _speed(_LEVELS[1])),
    _measure("speed51", "early stop at 51% / full network's", _speed(_LEVELS[0])),
    _measure("gain", "best level: accuracy above full (points)", _gain),
    _measure("smallest", "least weights as accurate as full (%)", _smallest, 1),
)


def _faster(label: str, share: float) -> Check:
    """The ticket at a share of weights stops earlier than the full network and both controls."""

    def check(results: Results) -> Verdict:
        records = results.records(label)
        if not records or not records[0].results.levels:
            return verdict(None, f"{label}: not run")
        level = _nearest(records[0], share)
        where = f"{label} at {records[0].results.remaining(level):.1%}"
        return Verdict(
            tuple(
                Comparison(
                    one.faster,
                    f"{where}, iterations: ticket - {one.other}: {difference(one.iterations)}",
                    p_of(one.iterations, below=True),
                )
                for one in records[0].results.comparisons(level)
            )
        )

    return check


def _better(label: str, share: float) -> Check:
    """The ticket is more accurate at early stopping than both controls."""

    def check(results: Results) -> Verdict:
        records = results.records(label)
        if not records or not records[0].results.levels:
            return verdict(None, f"{label}: not run")
        level = _nearest(records[0], share)
        where = f"{label} at {records[0].results.remaining(level):.1%}, points"
        found = {
            kind: records[0].results.difference(kind, level, "value")
            for kind in ("fresh", "random")
        }
        return Verdict(
            tuple(
                compared(d and d.scaled(100), f"{where}: ticket - {kind}")
                for kind, d in found.items()
            )
        )

    return check


TICKETS = Experiment(
    name="frankle2019-tickets",
    paper=f"{PAPER}, Figures 1, 3 to 5",
    title="tickets that learn faster than the full network and than both controls",
    measures=MEASURES,
    lines=(
        Line(
            LENET,
            {
                "smoke": _tickets(
                    "mlp,depth=1,width=30,size=8",
                    "digits,limit=500",
                    replace(ADAM, lr=1e-2),
                    {"fraction": 0.4},
                    steps=60,
                    rounds=2,
                    every=20,
                ),
                "cpu": _tickets(
                    "lenet_300_100",
                    CPU_LENET_DATA,
                    ADAM,
                    _LENET | {"validation": CPU_VALIDATION, "together": CPU_TRIALS},
                    steps=CPU_LENET_STEPS,
                    rounds=CPU_LENET_ROUNDS,
                    every=50,
                    test_limit=CPU_TEST,
                ),
                "paper": _tickets(
                    "lenet_300_100",
                    "mnist",
                    ADAM,
                    _LENET | _PAPER,
                    steps=50_000,
                    rounds=18,
                    every=100,
                ),
            },
            NUMBERS.row("section 2", "LeNet-300-100"),
        ),
        _conv("conv2", 2e-4, 20_000, 0.1),
        _conv("conv4", 3e-4, 25_000, 0.1),
        _conv("conv6", 3e-4, 30_000, 0.15),
    ),
    presets={
        "smoke": Preset(2, "Everything: a small network on 500 of scikit-learn's digits."),
        "cpu": Preset(
            CPU_TRIALS,
            f"LeNet-300-100 on {CPU_LENET_DATA} ({CPU_VALIDATION:,} of them for early "
            f"stopping) for {CPU_LENET_STEPS:,} steps, not 50,000 on all; "
            f"{CPU_CONV_MODEL} on {CPU_CONV_DATA} ({CPU_CONV_VALIDATION:,} of them for early "
            f"stopping) for {CPU_CONV_STEPS:,} steps at rate {CPU_CONV_RATE:g}, not Conv-2 for "
            "20,000 at 2e-4, with three trials and two levels, each of which prunes what the paper "
            f"prunes in two; {CPU_TEST:,} test images, {CPU_CONV_TEST:,} of CIFAR-10. One random "
            "mask a trial, where the paper has two.",
        ),
        "paper": Preset(
            5,
            "The number of levels is ours. Inputs are normalised by the data's mean and spread, "
            "which the paper does not say of its own; an independent reproduction found it "
            "decisive for LeNet. Nothing was run without.",
        ),
    },
    claims=(
        Claim(
            "LeNet: the ticket at 51.3% of weights learns faster than the full network and than "
            "both controls.",
            _faster(LENET, 0.513),
        ),
        Claim("LeNet: the ticket at 21.1% learns faster than all three.", _faster(LENET, 0.211)),
        Claim(
            "LeNet: at 21.1% the ticket is more accurate than both controls.",
            _better(LENET, 0.211),
        ),
        Claim(
            "Conv-2: the ticket near 41% learns faster than all three.",
            _faster("CIFAR-10: Conv-2", 0.411),
        ),
    ),
    notes="Accuracies are test accuracies at early stopping, which is the step of the lowest loss "
    "on images set aside from training. Inputs are normalised by mean and spread of the data. The "
    "gain of the best level is the largest of several means and so leans upward.",
)

EXPERIMENTS = (TICKETS,)
