"""Fitting noise (Zhang et al. 2017), and when it is learnt (Arpit et al. 2017)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from weightfold.lab.claims import Claim, Verdict
from weightfold.lab.probe_cell import ProbeCell
from weightfold.lab.probe_declare import (
    Estimate,
    Printed,
    ProbeExperiment,
    ProbeLine,
    ProbeMeasure,
    ProbePreset,
)
from weightfold.lab.probe_results import ProbeResults
from weightfold.report.statistics import paired
from weightfold.train.recipe import Recipe

ZHANG = (
    "Zhang, Bengio, Hardt, Recht and Vinyals, Understanding deep learning requires rethinking "
    "generalization, ICLR 2017"
)
ARPIT = "Arpit et al., A closer look at memorization in deep networks, ICML 2017"

# Sizes of the preset cpu.
CPU_SEEDS = 3
CPU_DATA, CPU_TEST, CPU_EPOCHS = "cifar10,limit=5000", 5000, 100
CPU_LEDGER, CPU_LEDGER_RUNS, CPU_LEDGER_EPOCHS = "mnist,limit=2000", 20, 30

SGD = Recipe(epochs=300, lr=0.01, schedule="constant", crop_padding=0, flip=False)
"""Momentum 0.9 and learning rate 0.01 as for the paper's MLPs; that it stays is ours."""

_CPU = replace(SGD, epochs=CPU_EPOCHS)
_ALL = "conditions=true+random-labels+shuffled-pixels+random-pixels+gaussian"
_TWO = "conditions=true+random-labels"
_NOISE = "fractions=0.2+0.4+0.6+0.8"

SMALL, DEEP = "MLP 1 x 512", "MLP 3 x 512"


def _fit(model: str, data: str, recipe: Recipe, options: str, test: int | None = None) -> ProbeCell:
    return ProbeCell(f"memorization,{options}", 1, model, data, recipe=recipe, test_limit=test)


def _line(
    label: str,
    model: str,
    options: str,
    published: dict[str, Printed],
    *,
    recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe,
    note: str = "",
    cpu: bool = True,
) -> ProbeLine:
    cells = {"paper": _fit(model, "cifar10", recipe(SGD), options)}
    if cpu:
        cells["cpu"] = _fit(model, CPU_DATA, recipe(_CPU), options, CPU_TEST)
    return ProbeLine(label, cells, published, note=note, seeds=None if label == SMALL else 2)


def _table(true: float, train: float, test: float) -> dict[str, Printed]:
    printed = {"true_test": true, "random_train": train, "random_test": test}
    return {key: Printed(value, "Table 1") for key, value in printed.items()}


def _smoke(options: str) -> ProbeCell:
    recipe = replace(SGD, epochs=40, batch_size=32, lr=0.05)
    return _fit("mlp,depth=1,width=128,size=8", "digits,limit=200", recipe, options)


def _value(condition: str, part: str) -> Callable[[Sequence[Any]], Estimate | None]:
    """Accuracy at the end under a condition, in percent, or epochs to zero training error."""

    def of(records: Sequence[Any]) -> Estimate | None:
        fits = [
            fit
            for fit in records[0].fits
            if (fit.line.condition, fit.line.fraction, fit.line.variant) == (condition, 1.0, "")
        ]
        if not fits:
            return None
        if part == "epochs":
            values = [fit.at_least for fit in fits]
        else:
            values = [100 * getattr(fit, f"{part}_accuracy") for fit in fits]
        found = paired(values, [0.0] * len(values))
        if part == "epochs" and any(fit.zero_epoch is None for fit in fits):
            return Estimate(found.mean, n=found.n, bound=">")
        return Estimate(found.mean, found.low, found.high, found.n)

    return of


def _measure(key: str, title: str, condition: str, part: str) -> ProbeMeasure:
    return ProbeMeasure(key, title, {"memorization": _value(condition, part)}, digits=2)


def _verdict(label: str, claim: str) -> Callable[[ProbeResults], Verdict]:
    """What a finding itself says of a claim that begins so."""

    def check(results: ProbeResults) -> Verdict:
        for record in results.records(label):
            for verdict in record.verdicts:
                if verdict.claim.startswith(claim):
                    return Verdict(verdict.holds, f"{label}: {verdict.numbers}")
        return Verdict("not run", f"{label}: not run")

    return check


def _fits_all_the_same(label: str, regularised: Sequence[str]) -> Callable[[ProbeResults], Verdict]:
    """Random labels are fitted under every regulariser."""

    def check(results: ProbeResults) -> Verdict:
        texts, missed = [], 0
        for name in (label, *regularised):
            for record in results.records(name):
                train = _value("random-labels", "train")([record])
                epochs = _value("random-labels", "epochs")([record])
                if train is None or epochs is None:
                    continue
                missed += epochs.bound == ">"
                texts.append(
                    f"{name}: training accuracy {train.value:.2f}% after "
                    f"{epochs.bound}{epochs.value:.0f} epochs"
                )
        if not texts:
            return Verdict("not run", "not run")
        return Verdict("unclear" if missed else "holds", "; ".join(texts))

    return check


_REGULARISED = {
    f"{SMALL}, weight decay": lambda recipe: replace(recipe, weight_decay=5e-4),
    f"{SMALL}, crop and flip": lambda recipe: replace(recipe, crop_padding=4, flip=True),
}

MEMORIZATION = ProbeExperiment(
    name="zhang2017-memorization",
    paper=f"{ZHANG}, Table 1 and Figure 1; {ARPIT}, Figure 8",
    title="noise is fitted to the last label, later than true data",
    measures=(
        _measure("true_test", "true labels: test accuracy (%)", "true", "test"),
        _measure("random_train", "random labels: training accuracy (%)", "random-labels", "train"),
        _measure("random_test", "random labels: test accuracy (%)", "random-labels", "test"),
        _measure("epochs_true", "true labels: epochs to zero error", "true", "epochs"),
        _measure("epochs_random", "random labels: epochs to zero error", "random-labels", "epochs"),
    ),
    lines=(
        replace(
            _line(
                SMALL,
                "mlp,depth=1,width=512,size=32",
                f"{_ALL},{_NOISE}",
                _table(50.51, 99.34, 10.61),
            ),
            cells={
                **_line(SMALL, "mlp,depth=1,width=512,size=32", f"{_ALL},{_NOISE}", {}).cells,
                "smoke": _smoke(f"{_TWO},fractions=0.5"),
            },
        ),
        _line(DEEP, "mlp,depth=3,width=512,size=32", _TWO, _table(52.39, 100.0, 10.48)),
        *(
            _line(label, "mlp,depth=1,width=512,size=32", _TWO, {}, recipe=change)
            for label, change in _REGULARISED.items()
        ),
        _line(f"{SMALL}, dropout 0.5", "mlp,depth=1,width=512,size=32,dropout=0.5", _TWO, {}),
        _line(
            "small AlexNet", "small_alexnet,size=32", _TWO, _table(76.07, 99.82, 9.86), cpu=False
        ),
        _line(
            "small Inception",
            "small_inception",
            _TWO,
            _table(85.75, 100.0, 9.78),
            cpu=False,
        ),
    ),
    presets={
        "smoke": ProbePreset(2, "Everything: a small MLP on 200 of scikit-learn's digits."),
        "cpu": ProbePreset(
            CPU_SEEDS,
            f"{CPU_DATA}, images of 32 pixels where the paper crops to 28, at most {CPU_EPOCHS} "
            f"epochs, {CPU_TEST:,} test images; the MLPs only. Fewer examples are learnt by heart "
            "sooner and teach less.",
        ),
        "paper": ProbePreset(
            3,
            "Images of 32 pixels where the paper crops to 28; the learning rate stays where the "
            "paper's falls by 5% an epoch.",
        ),
    },
    claims=(
        Claim(
            "All kinds of data and noise are fitted to zero training error.",
            _verdict(SMALL, "Every condition"),
        ),
        Claim(
            "With random labels test accuracy is at chance.",
            _verdict(SMALL, "After training on random labels"),
        ),
        Claim("Random labels are fitted later than true ones.", _verdict(SMALL, "Random labels")),
        Claim(
            "Time to zero error grows with the share of noise.", _verdict(SMALL, "The more noise")
        ),
        Claim(
            "Regularisers do not keep random labels from being fitted.",
            _fits_all_the_same(SMALL, (*_REGULARISED, f"{SMALL}, dropout 0.5")),
        ),
    ),
    notes="Training and test accuracies are those after the last epoch, which is the first without "
    "a training error.",
)


def _ledger(data: str, recipe: Recipe, model: str = "mlp,depth=1,width=512") -> ProbeCell:
    return ProbeCell("example-ledger", 1, model, data, recipe=recipe)


def _always(condition: str) -> Callable[[Sequence[Any]], Estimate | None]:
    """Share of examples right after epoch one and ever after, in percent, over runs."""

    def of(records: Sequence[Any]) -> Estimate | None:
        totals = next((t for t in records[0].totals if t.condition == condition), None)
        if totals is None:
            return None
        values = [100 * row[-1] for row in totals.kept]
        found = paired(values, [0.0] * len(values))
        return Estimate(found.mean, found.low, found.high, found.n)

    return of


def _easy_examples(label: str) -> Callable[[ProbeResults], Verdict]:
    """More true than noisy examples are right from epoch one on; of noise, none."""

    def check(results: ProbeResults) -> Verdict:
        records = results.records(label)
        true, noise = (
            _always(condition)(records) if records else None
            for condition in ("true", "random-labels")
        )
        if true is None or noise is None:
            return Verdict("not run", f"{label}: not run")
        text = f"true {true.value:.1f}%, random labels {noise.value:.1f}%, {true.n} runs"
        if true.value <= noise.value:
            return Verdict("does not hold", text)
        sure = true.low is not None and noise.high is not None and noise.high < true.low
        return Verdict("holds" if sure else "unclear", text)

    return check


_RUNS = "MNIST: MLP 1 x 512"

LEDGER = ProbeExperiment(
    name="arpit2017-ledger",
    paper=f"{ARPIT}, Figure 1",
    title="real data has easy examples, noise has none",
    measures=(
        ProbeMeasure(
            "always_true",
            "true labels: right from epoch 1 on (%)",
            {"example-ledger": _always("true")},
            digits=1,
        ),
        ProbeMeasure(
            "always_random",
            "random labels: right from epoch 1 on (%)",
            {"example-ledger": _always("random-labels")},
            digits=1,
        ),
    ),
    lines=(
        ProbeLine(
            _RUNS,
            {
                "smoke": _ledger(
                    "digits,limit=200",
                    replace(SGD, epochs=5, batch_size=32),
                    "mlp,depth=1,width=32,size=8",
                ),
                "cpu": _ledger(CPU_LEDGER, replace(SGD, epochs=CPU_LEDGER_EPOCHS)),
                "paper": _ledger("mnist", replace(SGD, epochs=100), "mlp,depth=2,width=4096"),
            },
        ),
    ),
    presets={
        "smoke": ProbePreset(3, "Everything: a small MLP on 200 of scikit-learn's digits."),
        "cpu": ProbePreset(
            CPU_LEDGER_RUNS,
            f"MLP 1 x 512 on {CPU_LEDGER} for {CPU_LEDGER_EPOCHS} epochs and {CPU_LEDGER_RUNS} "
            "runs, not 2 x 4096 on all of MNIST and 100 runs.",
        ),
        "paper": ProbePreset(100, "The number of epochs is ours."),
    },
    claims=(
        Claim(
            "Some true examples are right from the first epoch on; of noise almost none.",
            _easy_examples(_RUNS),
        ),
    ),
    notes="The paper prints histograms, no numbers.",
)

EXPERIMENTS = (MEMORIZATION, LEDGER)
