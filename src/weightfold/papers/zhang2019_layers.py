"""The survey's figures of layer reset: which layers may go back to where they began."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from weightfold.lab.claims import Check
from weightfold.lab.experiment import Claim, Estimate, Experiment, Line, Preset, Quantity
from weightfold.lab.figures import dots
from weightfold.lab.measures import by_probe
from weightfold.lab.probing import Probing, calling
from weightfold.lab.results import Results
from weightfold.lab.verdicts import WORST_FIRST, Comparison, Verdict, verdict
from weightfold.report.numbers import difference
from weightfold.report.statistics import Paired, judge, judge_apart
from weightfold.train.recipe import Recipe

PAPER = "Zhang, Bengio and Singer, Are All Layers Created Equal?, ICML workshop 2019, JMLR 2022"

# Sizes of the preset cpu.
CPU_SEEDS = 3
CPU_MNIST, CPU_CIFAR = "mnist,limit=20000", "cifar10,limit=10000"
CPU_EPOCHS_MNIST, CPU_EPOCHS_CIFAR = 20, 12
CPU_SEEDS_CIFAR, CPU_TEST_CIFAR = 2, 2000

SGD = Recipe(epochs=100, lr=0.05, schedule="cosine", crop_padding=0, flip=False)
"""Momentum 0.9, batch 128; the survey gives no learning rate: ours."""

MLP = "MNIST: MLP 3 x 256"
RESNET20 = "CIFAR-10: ResNet-20, batch norm recalibrate"


CPU_RESNET, CPU_RESNET_DATA = "resnet_narrow,depth=20,width=8", "cifar10,limit=2560"
CPU_RESNET_EPOCHS, CPU_RESNET_TEST = 8, 1000


def _call(
    model: str, data: str, recipe: Recipe, bn: str, test: int | None = None, **options: Any
) -> Probing:
    return calling("layer-reset", model, data, recipe=recipe, bn=bn, test_limit=test, **options)


def _resnet20() -> Line:
    """ResNet-20 of half the width, with fewer cells than the other lines."""
    recipe = replace(SGD, epochs=CPU_RESNET_EPOCHS, batch_size=64)
    cpu = _call(
        CPU_RESNET, CPU_RESNET_DATA, recipe, "recalibrate", CPU_RESNET_TEST, reset_to=(1,), draws=1
    )
    return Line(
        RESNET20,
        {"cpu": cpu},
        note=f"{CPU_RESNET} on {CPU_RESNET_DATA}, {CPU_RESNET_EPOCHS} epochs in batches of 64, "
        f"{CPU_RESNET_TEST:,} test images; each layer drawn anew once.",
    )


def _on_mnist(depth: int, smoke: Probing | None = None) -> Line:
    model, recipe = f"mlp,depth={depth},width=256", replace(SGD, epochs=CPU_EPOCHS_MNIST)
    runs = {
        "cpu": _call(model, CPU_MNIST, recipe, "keep"),
        "paper": _call(model, "mnist", SGD, "keep"),
    }
    return Line(f"MNIST: MLP {depth} x 256", runs | ({"smoke": smoke} if smoke else {}))


def _on_cifar(label: str, cpu: str, paper: str, bn: str, note: str = "") -> Line:
    recipe = replace(SGD, epochs=CPU_EPOCHS_CIFAR)
    return Line(
        f"{label}, batch norm {bn}",
        {
            "cpu": _call(cpu, CPU_CIFAR, recipe, bn, CPU_TEST_CIFAR),
            "paper": _call(paper, "cifar10", SGD, bn),
        },
        note=note,
        seeds=CPU_SEEDS_CIFAR,
    )


_VGG = ("vgg_narrow,depth=11,width=8", "vgg_narrow,depth=11,width=64")
_VGG16 = ("vgg_narrow,depth=16,width=8", "vgg_narrow,depth=16,width=64")
_RESNET = ("resnet_narrow,depth=14,width=8", "resnet_narrow,depth=20,width=16")
_POLICIES = ("keep", "source", "recalibrate")

LINES = (
    _on_mnist(
        3,
        _call(
            "mlp,depth=2,width=32,size=8",
            "digits,limit=500",
            replace(SGD, epochs=4, batch_size=32),
            "keep",
        ),
    ),
    _on_mnist(1),
    _on_mnist(6),
    *(_on_cifar("CIFAR-10: VGG-11", *_VGG, bn) for bn in _POLICIES),
    _on_cifar("CIFAR-10: VGG-16", *_VGG16, "recalibrate"),
    *(_on_cifar("CIFAR-10: ResNet", *_RESNET, bn) for bn in _POLICIES),
    _resnet20(),
)


def _trained(records: Sequence[Any]) -> Estimate:
    errors = [100 * error for error in records[0].trained]
    return Estimate(sum(errors) / len(errors), n=len(errors))


def _first(records: Sequence[Any]) -> Estimate:
    return Estimate.of(records[0].increase(records[0].units[0].name).scaled(100))


def _others(records: Sequence[Any]) -> Estimate:
    """The largest mean rise among all layers but the first."""
    found = records[0]
    rises = [found.increase(unit.name) for unit in found.units[1:]]
    return Estimate.of(max(rises, key=lambda rise: rise.mean).scaled(100))


def _robustness(records: Sequence[Any]) -> Estimate:
    return Estimate.of(records[0].robustness.scaled(100))


def _critical(records: Sequence[Any]) -> Estimate:
    found = records[0]
    return Estimate(100 * len(found.critical) / len(found.units), n=len(found.seeds))


def _measure(key: str, title: str, of: Callable[[Sequence[Any]], Estimate | None]) -> Quantity:
    return Quantity(key, title, over=by_probe({"layer-reset": of}), digits=1)


def _only_the_first(label: str) -> Check:
    """The first layer is critical and no other is."""

    def check(results: Results) -> Verdict:
        records = results.records(label)
        if not records:
            return verdict(None, f"{label}: not run")
        found = records[0]
        first, *others = [unit.name for unit in found.units]
        verdicts = {name: found.verdict(name) for name in (first, *others)}
        rises = "; ".join(
            f"{name}: {difference(found.increase(name), factor=100)} points, {verdicts[name]}"
            for name in verdicts
        )
        if verdicts[first] == "robust" or any(verdicts[n] == "critical" for n in others):
            return verdict("does not hold", rises)
        undecided = "undecided" in verdicts.values()
        return verdict("undecided" if undecided or len(found.seeds) == 1 else "holds", rises)

    return check


def _drawn_anew(labels: Sequence[str]) -> Check:
    """Drawing any layer anew costs more than 5 points."""

    def check(results: Results) -> Verdict:
        from weightfold.probes.layers.finding import CRITICAL

        return Verdict(
            tuple(
                _costs(records[0], CRITICAL)
                if (records := results.records(label))
                else Comparison(None, f"{label}: not run")
                for label in labels
            )
        )

    return check


def _costs(found: Any, bar: float) -> Comparison:
    """Whether every layer of a network, drawn anew, costs more than `bar`."""
    names = [u.name for u in found.units if found.errors(u.name, "drawn anew") is not None]
    rises: list[Paired] = [found.increase(name, "drawn anew") for name in names]
    means = [100 * rise.mean for rise in rises]
    judged = [judge(rise.minus(bar)) for rise in rises]
    costly = sum(rise.mean > bar for rise in rises)
    text = (
        f"{found.network}: {costly} of {len(rises)} layers cost more than {100 * bar:g} points, "
        f"from {min(means):+.1f} to {max(means):+.1f}"
    )
    return Comparison(min(judged, key=WORST_FIRST.index), text)


def _policy_decides(labels: Sequence[str]) -> Check:
    """A layer is critical under one policy for batch norm and robust under another."""

    def check(results: Results) -> Verdict:
        found = {label: results.records(label) for label in labels}
        if not all(found.values()):
            return verdict(None, "not run")
        reset = {label: records[0] for label, records in found.items()}
        text = "; ".join(
            f"{label}: {len(one.critical)} critical ({', '.join(one.critical) or 'none'}), "
            f"{len(one.of_verdict('undecided'))} undecided"
            for label, one in reset.items()
        )
        critical, robust = (
            {name for one in reset.values() for name in one.of_verdict(verdict)}
            for verdict in ("critical", "robust")
        )
        if critical & robust:
            single = any(len(one.seeds) == 1 for one in reset.values())
            return verdict("undecided" if single else "holds", text)
        undecided = any(one.of_verdict("undecided") for one in reset.values())
        return verdict("undecided" if undecided else "does not hold", text)

    return check


def _deeper_is_more_robust(labels: Sequence[str]) -> Check:
    """The mean rise over layers falls from each network to the next deeper one."""

    def check(results: Results) -> Verdict:
        records = [results.records(label) for label in labels]
        if not all(records):
            return verdict(None, "not run")
        scores = [record[0].robustness for record in records]
        text = "; ".join(
            f"{label}: {difference(score, factor=100)} points"
            for label, score in zip(labels, scores, strict=True)
        )
        judged = [judge_apart((a.low, a.high), (b.low, b.high)) for a, b in pairwise(scores)]
        return verdict(min(judged, key=WORST_FIRST.index), text)

    return check


def _no_prediction(label: str) -> Check:
    """The distance from the start does not rank the layers by their rise."""

    def check(results: Results) -> Verdict:
        records = results.records(label)
        if not records:
            return verdict(None, f"{label}: not run")
        found = {norm: records[0].correlation(norm) for norm in ("l2", "linf")}
        known = {norm: c for norm, c in found.items() if c is not None}
        if not known:
            return verdict("undecided", f"{label}: too few layers")
        text = "; ".join(
            f"{norm}: rho {c.rho:+.2f}, p {c.p:.2f}, {c.n} layers" for norm, c in known.items()
        )
        predicts = any(c.p < 0.05 and c.rho > 0 for c in known.values())
        return verdict("does not hold" if predicts else "undecided", f"{label}: {text}")

    return check


_DEPTHS = ("MNIST: MLP 1 x 256", MLP, "MNIST: MLP 6 x 256")
_VGGS = tuple(f"CIFAR-10: VGG-11, batch norm {bn}" for bn in _POLICIES)
_RESNETS = tuple(f"CIFAR-10: ResNet, batch norm {bn}" for bn in _POLICIES)

_FAMILIES = {
    "MLP": _DEPTHS,
    "VGG": (_VGGS[-1], "CIFAR-10: VGG-16, batch norm recalibrate"),
    "ResNet": _RESNETS[-1:],
}
"""Networks of rising depth, under one policy for batch norm."""


def _draw(results: Results, path: Path) -> None:
    """The robustness score against depth, of what is finished."""
    from weightfold.probes.layers.figures import robustness_by_depth

    found = {
        family: [record for label in labels for record in results.records(label)]
        for family, labels in _FAMILIES.items()
    }
    finished = {family: records for family, records in found.items() if records}
    if finished:
        robustness_by_depth(finished, path)
    else:
        dots(results, path)


LAYERS = Experiment(
    name="zhang2019-layers",
    paper=f"{PAPER}; the survey's Figures 2 to 5",
    title="which layers may go back to their initial weights",
    measures=(
        _measure("trained", "test error, trained (%)", _trained),
        _measure("first", "rise, first layer at epoch 0 (points)", _first),
        _measure("others", "largest rise of another layer (points)", _others),
        _measure("robustness", "mean rise over layers (points)", _robustness),
        _measure("critical", "critical layers (%)", _critical),
    ),
    lines=LINES,
    presets={
        "smoke": Preset(2, "Everything: a small MLP on 500 of scikit-learn's digits."),
        "cpu": Preset(
            CPU_SEEDS,
            f"{CPU_EPOCHS_MNIST} epochs on {CPU_MNIST}; on CIFAR-10 narrow networks (8 channels at "
            f"first), {CPU_EPOCHS_CIFAR} epochs on {CPU_CIFAR}, {CPU_TEST_CIFAR:,} test images and "
            f"{CPU_SEEDS_CIFAR} seeds.",
        ),
        "paper": Preset(
            3, "The learning rate is ours; ResNet-20 of width 16 stands for the paper's ResNets."
        ),
    },
    claims=(
        Claim("Of the MLP only the first layer is critical.", _only_the_first(MLP)),
        Claim(
            "With any layer drawn anew the network is destroyed.",
            _drawn_anew((MLP, _VGGS[2], _RESNETS[2], RESNET20)),
        ),
        Claim("Deeper networks are more robust.", _deeper_is_more_robust(_DEPTHS)),
        Claim(
            "Distance from the start does not predict which layers matter (VGG-16). A small "
            "sample cannot prove this: it is refuted or undecided.",
            _no_prediction("CIFAR-10: VGG-16, batch norm recalibrate"),
        ),
        Claim("Ours: batch norm's policy decides what is critical (VGG).", _policy_decides(_VGGS)),
        Claim(
            "Ours: batch norm's policy decides what is critical (ResNet).",
            _policy_decides(_RESNETS),
        ),
    ),
    notes="The survey prints heatmaps, no numbers: there are none to set beside ours. A layer is "
    "critical if its initial weights raise the test error by more than 5 points, which is our bar; "
    "the mean rise over layers is our form of the survey's aggregate score.",
    draw=_draw,
)

EXPERIMENTS = (LAYERS,)
