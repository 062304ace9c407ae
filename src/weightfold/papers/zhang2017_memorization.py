"""Fitting noise (Zhang et al. 2017), and when it is learnt (Arpit et al. 2017)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightfold.lab.claims import Check
from weightfold.lab.experiment import SHARE, Claim, Estimate, Experiment, Line, Preset, Quantity
from weightfold.lab.measures import by_probe
from weightfold.lab.printed import Printed, read_paper
from weightfold.lab.probing import Probing, calling
from weightfold.lab.results import Results
from weightfold.lab.verdicts import Comparison, Verdict, verdict
from weightfold.report.statistics import judge_apart, paired
from weightfold.train.recipe import Recipe

ZHANG = (
    "Zhang, Bengio, Hardt, Recht and Vinyals, Understanding deep learning requires rethinking "
    "generalization, ICLR 2017"
)
NUMBERS = read_paper(Path(__file__).with_name("zhang2017.toml"))
ARPIT = "Arpit et al., A closer look at memorization in deep networks, ICML 2017"

# Sizes of the preset cpu.
CPU_SEEDS = 3
CPU_DATA, CPU_TEST, CPU_EPOCHS = "cifar10,limit=5000", 5000, 100
CPU_LEDGER, CPU_LEDGER_RUNS, CPU_LEDGER_EPOCHS = "mnist,limit=2000", 20, 30

SGD = Recipe(epochs=300, lr=0.01, schedule="constant", crop_padding=0, flip=False)
"""Momentum 0.9 and learning rate 0.01 as for the paper's MLPs; that it stays is ours."""

_CPU = replace(SGD, epochs=CPU_EPOCHS)
_ALL = ("true", "random-labels", "shuffled-pixels", "random-pixels", "gaussian")
_TWO: dict[str, Any] = {"conditions": ("true", "random-labels")}
_EVERYTHING: dict[str, Any] = {"conditions": _ALL, "fractions": (0.2, 0.4, 0.6, 0.8)}

SMALL, DEEP = "MLP 1 x 512", "MLP 3 x 512"


def _fit(
    model: str, data: str, recipe: Recipe, options: dict[str, Any], test: int | None = None
) -> Probing:
    return calling("memorization", model, data, recipe=recipe, test_limit=test, **options)


_CELLS = {
    "true_test": "true labels, test",
    "random_train": "random labels, training",
    "random_test": "random labels, test",
}


def _line(
    label: str,
    model: str,
    options: dict[str, Any],
    *,
    recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe,
    smoke: Probing | None = None,
    cpu: bool = True,
) -> Line:
    runs = {"paper": _fit(model, "cifar10", recipe(SGD), options)}
    if cpu:
        runs["cpu"] = _fit(model, CPU_DATA, recipe(_CPU), options, CPU_TEST)
    if smoke:
        runs["smoke"] = smoke
    found = NUMBERS.rows("Table 1").get(label, {})
    published: dict[str, Printed] = {
        key: found[cell] for key, cell in _CELLS.items() if cell in found
    }
    return Line(label, runs, published, seeds=None if label == SMALL else 2)


_SMOKE = _fit(
    "mlp,depth=1,width=128,size=8",
    "digits,limit=200",
    replace(SGD, epochs=40, batch_size=32, lr=0.05),
    _TWO | {"fractions": (0.5,)},
)


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
        return Estimate.of(found)

    return of


def _measure(key: str, title: str, condition: str, part: str) -> Quantity:
    within = None if part == "epochs" else SHARE
    return Quantity(
        key, title, over=by_probe({"memorization": _value(condition, part)}), within=within
    )


def _verdict(label: str, claim: str) -> Check:
    """What a finding itself says of a claim that begins so."""

    def check(results: Results) -> Verdict:
        for record in results.records(label):
            for found in record.verdicts:
                if found.claim.startswith(claim):
                    return verdict(found.holds, f"{label}: {found.numbers}")
        return verdict(None, f"{label}: not run")

    return check


def _fits_all_the_same(label: str, regularised: Sequence[str]) -> Check:
    """Random labels are fitted under every regulariser."""

    def check(results: Results) -> Verdict:
        found = []
        for name in (label, *regularised):
            records = results.records(name)
            train = _value("random-labels", "train")(records) if records else None
            epochs = _value("random-labels", "epochs")(records) if records else None
            if train is None or epochs is None:
                found.append(Comparison(None, f"{name}: not run"))
                continue
            text = (
                f"{name}: training accuracy {train.value:.2f}% after "
                f"{epochs.bound}{epochs.value:.0f} epochs"
            )
            found.append(Comparison("undecided" if epochs.bound == ">" else "holds", text))
        return Verdict(tuple(found))

    return check


_REGULARISED = {
    f"{SMALL}, weight decay": lambda recipe: replace(recipe, weight_decay=5e-4),
    f"{SMALL}, crop and flip": lambda recipe: replace(recipe, crop_padding=4, flip=True),
}

MEMORIZATION = Experiment(
    name="zhang2017-memorization",
    paper=f"{ZHANG}, Table 1 and Figure 1; {ARPIT}, Figure 8",
    title="noise is fitted to the last label, random labels later than true ones",
    measures=(
        _measure("true_test", "true labels: test accuracy (%)", "true", "test"),
        _measure("random_train", "random labels: training accuracy (%)", "random-labels", "train"),
        _measure("random_test", "random labels: test accuracy (%)", "random-labels", "test"),
        _measure("epochs_true", "true labels: epochs to zero error", "true", "epochs"),
        _measure("epochs_random", "random labels: epochs to zero error", "random-labels", "epochs"),
    ),
    lines=(
        _line(SMALL, "mlp,depth=1,width=512,size=32", _EVERYTHING, smoke=_SMOKE),
        _line(DEEP, "mlp,depth=3,width=512,size=32", _TWO),
        *(
            _line(label, "mlp,depth=1,width=512,size=32", _TWO, recipe=change)
            for label, change in _REGULARISED.items()
        ),
        _line(f"{SMALL}, dropout 0.5", "mlp,depth=1,width=512,size=32,dropout=0.5", _TWO),
        _line("small AlexNet", "small_alexnet,size=32", _TWO, cpu=False),
        _line("small Inception", "small_inception", _TWO, cpu=False),
    ),
    presets={
        "smoke": Preset(2, "Everything: a small MLP on 200 of scikit-learn's digits."),
        "cpu": Preset(
            CPU_SEEDS,
            f"{CPU_DATA}, images of 32 pixels where the paper crops to 28, at most {CPU_EPOCHS} "
            f"epochs, {CPU_TEST:,} test images; the MLPs only. Fewer examples are learnt by heart "
            "sooner and teach less.",
        ),
        "paper": Preset(
            3,
            "Images of 32 pixels, normalised by the data's mean and spread, where the paper crops "
            "to 28 and whitens each image by itself; the learning rate stays at 0.01 where the "
            "paper's falls by 5% an epoch, and starts at 0.1 for the small Inception.",
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
    "a training error. That noise is fitted later is said of random labels alone: inputs of random "
    "pixels and Gaussian noise may be fitted sooner than true data, see each line's table.",
)


def _ledger(data: str, recipe: Recipe, model: str = "mlp,depth=1,width=512") -> Probing:
    return calling("example-ledger", model, data, recipe=recipe)


def _always(condition: str) -> Callable[[Sequence[Any]], Estimate | None]:
    """Share of examples right after epoch one and ever after, in percent, over runs."""

    def of(records: Sequence[Any]) -> Estimate | None:
        totals = next((t for t in records[0].totals if t.condition == condition), None)
        if totals is None:
            return None
        values = [100 * row[-1] for row in totals.kept]
        found = paired(values, [0.0] * len(values))
        return Estimate.of(found)

    return of


def _easy_examples(label: str) -> Check:
    """More true than noisy examples are right from epoch one on; of noise, none."""

    def check(results: Results) -> Verdict:
        records = results.records(label)
        true, noise = (
            _always(condition)(records) if records else None
            for condition in ("true", "random-labels")
        )
        if true is None or noise is None:
            return verdict(None, f"{label}: not run")
        text = f"true {true.value:.1f}%, random labels {noise.value:.1f}%, {true.n} runs"
        return verdict(judge_apart((true.low, true.high), (noise.low, noise.high)), text)

    return check


_RUNS = "MNIST: MLP 1 x 512"

LEDGER = Experiment(
    name="arpit2017-ledger",
    paper=f"{ARPIT}, Figure 1",
    title="real data has easy examples, noise has none",
    measures=(
        Quantity(
            "always_true",
            "true labels: right from epoch 1 on (%)",
            over=by_probe({"example-ledger": _always("true")}),
            within=SHARE,
            digits=1,
        ),
        Quantity(
            "always_random",
            "random labels: right from epoch 1 on (%)",
            over=by_probe({"example-ledger": _always("random-labels")}),
            within=SHARE,
            digits=1,
        ),
    ),
    lines=(
        Line(
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
        "smoke": Preset(3, "Everything: a small MLP on 200 of scikit-learn's digits."),
        "cpu": Preset(
            CPU_LEDGER_RUNS,
            f"MLP 1 x 512 on {CPU_LEDGER} for {CPU_LEDGER_EPOCHS} epochs and {CPU_LEDGER_RUNS} "
            "runs, not 2 x 4096 on all of MNIST and 100 runs.",
        ),
        "paper": Preset(100, "The number of epochs is ours."),
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
