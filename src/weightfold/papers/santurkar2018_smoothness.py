"""The survey's Figures 10 to 12: what batch norm does to training and to the loss."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightfold.lab.claims import Check, all_of, lower
from weightfold.lab.experiment import Claim, Estimate, Experiment, Figure, Line, Preset, Quantity
from weightfold.lab.measures import by_probe
from weightfold.lab.probing import calling
from weightfold.lab.results import Results
from weightfold.report.statistics import paired
from weightfold.train.recipe import Recipe

PAPER = (
    "Santurkar, Tsipras, Ilyas and Madry, How Does Batch Normalization Help Optimization?, NeurIPS "
    "2018"
)

LOW, HIGH = 0.1, 0.5
"""Learning rates: the paper's, and one five times as high, as its Figure 1 has (0.1 and 0.5)."""

CPU_DATA, CPU_EPOCHS, CPU_EVERY, CPU_WIDTH = "cifar10,limit=4000", 6, 20, 8
SGD = Recipe(epochs=60, schedule="constant", momentum=0.0, crop_padding=0, flip=False)

PLAIN, NORM, NOISY = "VGG", "VGG, batch norm", "VGG, noisy batch norm"
DEEP, DEEP_NORM = "deep linear net", "deep linear net, batch norm"
_OPTIONS = {PLAIN: ",batch_norm=false", NORM: "", NOISY: ",noise=true"}


def _vgg(name: str, lr: float) -> Line:
    recipe, options = replace(SGD, lr=lr), _OPTIONS[name]
    small = replace(recipe, epochs=1, batch_size=64)
    return Line(
        f"{name}, rate {lr:g}",
        {
            "smoke": calling(
                "smoothness",
                f"vgg_narrow,width=2{options}",
                "digits,rgb=true,size=32,limit=128",
                recipe=small,
                every=2,
                points=1,
                test_limit=50,
            ),
            "cpu": calling(
                "smoothness",
                f"vgg_narrow,width={CPU_WIDTH}{options}",
                CPU_DATA,
                recipe=replace(recipe, epochs=CPU_EPOCHS),
                every=CPU_EVERY,
                test_limit=1000,
            ),
            "paper": calling(
                "smoothness", f"vgg_narrow,width=64{options}", "cifar10", recipe=recipe, every=200
            ),
        },
    )


def _deep(name: str, options: str, lr: float) -> Line:
    def call(size: str, data: str, batch: int, epochs: int, every: int) -> Any:
        recipe = replace(SGD, lr=lr, batch_size=batch, epochs=epochs)
        model = f"deep_linear,{size},size=8{options}"
        return calling("smoothness", model, data, recipe=recipe, every=every)

    return Line(
        name,
        {
            "smoke": call("depth=5,width=8", "digits,limit=100", 100, 2, 1),
            "cpu": call("depth=25,width=32", "digits,limit=1000", 1000, 100, 5),
            "paper": call("depth=25,width=100", "digits", 1500, 1000, 10),
        },
        note="Full batches of scikit-learn's digits, not the paper's synthetic data.",
    )


LINES = (
    *(_vgg(name, lr) for lr in (LOW, HIGH) for name in _OPTIONS),
    _deep(DEEP, "", 1e-3),
    _deep(DEEP_NORM, ",batch_norm=true", 1e-3),
)


def by_seed(name: str) -> Callable[[Any], dict[int, float]]:
    """Seed -> figure of a finding of the probe: "beta", "loss_range", ..."""

    def of(found: Any) -> dict[int, float]:
        seeds = [course.seed for course in found.courses]
        return dict(zip(seeds, getattr(found, name), strict=True))

    return of


def _measure(key: str, title: str, factor: float = 1) -> Quantity:
    def over(records: Sequence[Any]) -> Estimate:
        values = [factor * value for value in getattr(records[0], key)]
        return Estimate.of(paired(values, [0.0] * len(values)))

    return Quantity(key, title, over=by_probe({"smoothness": over}))


def _loss_of_accuracy(found: Any) -> dict[int, float]:
    """Seed -> test error at the end."""
    return {c.seed: 1 - c.test[-1] for c in found.courses if c.test[-1] is not None}


def _fewer_errors(a: str, b: str) -> Check:
    return all_of(
        *(
            lower(
                f"{a}, rate {lr:g}",
                f"{b}, rate {lr:g}",
                _loss_of_accuracy,
                "test error (points)",
                100,
            )
            for lr in (LOW, HIGH)
        )
    )


def _smoother(a: str, b: str) -> Check:
    named = (
        ("loss_range", "range of the loss"),
        ("gradient_range", "range of the gradient's change"),
        ("beta", "effective smoothness"),
    )
    return all_of(*(lower(a, b, by_seed(key), text) for key, text in named))


def _ranges(results: Results, path: Path) -> bool:
    """The paper's Figure 4, of what is finished at the low rate."""
    from weightfold.probes.smoothness.finding import draw_ranges
    from weightfold.report.figures import drawing

    labels = [f"{name}, rate {LOW:g}" for name in (PLAIN, NORM)]
    found = {label: records[0] for label in labels if (records := results.records(label))}
    if not found:
        return False
    with drawing(path, figsize=(14, 4.2), ncols=3) as (figure, axes):
        draw_ranges(axes, {label: one.courses[0] for label, one in found.items()})
        axes[0].legend(fontsize="small")
        figure.suptitle("along the gradient, seed 0", fontsize="medium")
    return True


def _histograms(results: Results, path: Path) -> bool:
    """The distributions of the figures 10 and 11: the last drawn layer, a row a line."""
    from weightfold.probes.smoothness.finding import draw_histograms
    from weightfold.report.figures import drawing

    found = {
        line.label: records[0].courses[0].histograms[-1]
        for line in results.experiment.lines
        if line.label.startswith("VGG") and (records := results.records(line.label))
    }
    if not found:
        return False
    size = (4.4 * len(found), 3.6)
    with drawing(path, figsize=size, ncols=len(found), squeeze=False) as (_, axes):
        for axis, (label, one) in zip(axes[0], found.items(), strict=True):
            draw_histograms(axis, one)
            axis.set_title(f"{label}: {one.layer}", fontsize="small")
    return True


def _curves(results: Results, path: Path) -> bool:
    """Training and test accuracy by epoch: the figures 10 and 11."""
    from weightfold.report.figures import learning_curves

    panels: dict[str, dict[str, list[Any]]] = {}
    for line in results.experiment.lines:
        for record in results.records(line.label):
            if line.label.startswith("VGG"):
                for title, of in (("training", "train"), ("test", "test")):
                    runs = [getattr(c, of)[-len(c.train) :] for c in record.courses]
                    percent = [[100 * (v or 0) for v in run] for run in runs]
                    panels.setdefault(f"{title} accuracy (%)", {})[line.label] = percent
    if panels:
        learning_curves(panels, path, title="VGG with and without batch norm")
    return bool(panels)


_LOW = f", rate {LOW:g}"

SMOOTHNESS = Experiment(
    name="santurkar2018-smoothness",
    paper=f"{PAPER}; the survey's Figures 10 to 12",
    title="what batch norm does to training, to internal covariate shift and to the loss",
    measures=(
        _measure("last", "test accuracy, last epoch (%)", 100),
        _measure("beta", "effective smoothness"),
        _measure("loss_range", "range of the loss within 0.4 gradients"),
        _measure("gradient_range", "range of the gradient's change"),
        _measure("shift", "internal covariate shift / gradient"),
    ),
    lines=LINES,
    presets={
        "smoke": Preset(1, "Everything: VGG-11 of width 2 on 128 of scikit-learn's digits."),
        "cpu": Preset(
            3,
            f"VGG-11 of width {CPU_WIDTH}, not 64, {CPU_EPOCHS} epochs on {CPU_DATA}.",
        ),
        "paper": Preset(3, "Batch norm in place of biases; epochs and seeds are ours."),
    },
    claims=(
        Claim("Batch norm trains to fewer errors, at both rates.", _fewer_errors(NORM, PLAIN)),
        Claim("Noisy batch norm still beats none, at both rates.", _fewer_errors(NOISY, PLAIN)),
        Claim(
            "Batch norm raises internal covariate shift.",
            all_of(
                lower(PLAIN + _LOW, NORM + _LOW, by_seed("shift"), "shift / gradient"),
                lower(DEEP, DEEP_NORM, by_seed("shift"), "shift / gradient"),
            ),
        ),
        Claim("Batch norm makes the loss smoother (VGG).", _smoother(NORM + _LOW, PLAIN + _LOW)),
        Claim("Batch norm makes the loss smoother (deep linear net).", _smoother(DEEP_NORM, DEEP)),
    ),
    notes="The paper prints curves, no numbers: there are none to set beside ours. Medians over "
    "the steps that were looked at. Distances along the gradient end at 0.4 of it, as there. "
    "Internal covariate shift is as the paper defines it: the same batch, the layers below moved "
    "by one gradient step, the layer's own gradient before and after; relative to that gradient.",
    figures=(
        Figure("curves", "Figures 10 and 11: training with and without batch norm", _curves),
        Figure("histograms", "Figures 10 and 11: a layer's outputs over training", _histograms),
        Figure("ranges", "Figure 12: loss and gradient along the gradient", _ranges),
    ),
)

EXPERIMENTS = (SMOOTHNESS,)
