"""Figures 3 and 4 of the paper on intrinsic dimension, and what it does not ask of ExpandNets."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from weightfold.lab.claims import Check
from weightfold.lab.experiment import Axis, Claim, Estimate, Experiment, Line, Preset, Quantity
from weightfold.lab.measures import by_probe, last_accuracy
from weightfold.lab.results import Results
from weightfold.lab.run import Run
from weightfold.lab.training import Training
from weightfold.lab.verdicts import Verdict, p_of, verdict
from weightfold.papers._li2018 import (
    ACCURACY,
    DIMENSION,
    NUMBERS,
    PAPER,
    SGD,
    SMOKE,
    SMOKE_DATA,
    SMOKE_DIFFERS,
    describe_ratio,
    intrinsic,
    times,
)
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import difference
from weightfold.report.statistics import judge, paired, summarize
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from weightfold.probes.intrinsic.finding import IntrinsicDimension

# Sizes of the preset cpu.
CPU_DATA, CPU_SEEDS = "mnist,limit=10000", 1
CPU = replace(SGD, epochs=10)
CPU_SEARCH = {"start": 128, "resolution": 0.3}
SMOKE_SEARCH = {"resolution": 0.5}
CPU_EXPANDED_SEEDS, CPU_LENET_SEEDS = 5, 2

DEPTHS, WIDTHS = (1, 2, 3, 4, 5), (50, 100, 200, 400)
_DIRECT = ((1, 1), (1, 2), (1, 3), (1, 5), (1, 10), (2, 2), (2, 5), (3, 5))
"""Depth and width of the small networks that are trained directly."""
_BESIDE = "FC 2 x 200"
_SIZE = Quantity(
    "parameters",
    "parameters",
    over=by_probe({"intrinsic-dimension": lambda records: Estimate(records[0].parameters)}),
    digits=0,
)
_VARIATION = NUMBERS.row("Figure 3", "FC")


def _label(depth: int, width: int) -> str:
    return f"FC {depth} x {width}"


def _parameters(depth: int, width: int) -> int:
    """Of a network from 784 pixels to 10 classes with biases."""
    return 785 * width + (depth - 1) * (width + 1) * width + 10 * (width + 1)


def _grid_line(depth: int, width: int) -> Line:
    model = f"mlp,depth={depth},width={width}"
    runs = {
        "cpu": intrinsic(model, CPU_DATA, CPU, CPU_SEARCH),
        "paper": intrinsic(model, "mnist", SGD),
    }
    if (depth, width) in ((1, 50), (2, 100)):
        runs["smoke"] = intrinsic(model, SMOKE_DATA, SMOKE, SMOKE_SEARCH)
    at = _parameters(depth, width)
    return Line(_label(depth, width), runs, at=at, series=(f"{depth} hidden",))


def _ends(results: Results) -> list[Any]:
    """What was found of each network of the grid."""
    labels = [_label(depth, width) for depth in DEPTHS for width in WIDTHS]
    return [record for label in labels for record in results.records(label)]


def _varies_little(results: Results) -> Verdict:
    """The dimension varies far less than the number of parameters."""
    found = _ends(results)
    if len(found) < 2:
        return verdict(None, "fewer than two networks were run")
    above = [f for f in found if f.dimension is None]
    sizes, dims = [f.parameters for f in found], [f.dimension or f.tried for f in found]
    d, size = max(dims) / min(dims), max(sizes) / min(sizes)
    text = (
        f"{len(found)} networks: parameters vary by a factor of {size:.1f}, dimensions by "
        f"{d:.2f}, from {min(dims):.0f} to {max(dims):.0f} (paper: "
        f"{_VARIATION['parameters'].value} and {_VARIATION['dimension'].value})"
    )
    if above:
        text += (
            f"; of {len(above)} it is above the largest that was tried, which counts in its place"
        )
        return verdict("undecided", text)
    # Half of the paper's distance in the logarithm, our bar for "far less".
    return verdict("holds" if log(d) < log(size) / 2 else "does not hold", text)


GRID = Experiment(
    name="li2018-grid",
    paper=f"{PAPER}, Figure 3",
    title="20 fully-connected networks of 24 times differing size need about one dimension",
    measures=(DIMENSION, _SIZE, ACCURACY),
    axis=Axis("parameters", log=True),
    lines=tuple(_grid_line(depth, width) for depth in DEPTHS for width in WIDTHS),
    presets={
        "smoke": Preset(1, SMOKE_DIFFERS),
        "cpu": Preset(
            CPU_SEEDS,
            f"{CPU.epochs} epochs on {CPU_DATA}, not 100 on all; one seed, as in the paper; the "
            "search ends at dimensions 30% apart.",
        ),
        "paper": Preset(3, "The paper's figure is from one run each."),
    },
    claims=(
        Claim(
            "Parameters vary 24 times, the dimension 1.33 times (here: by less than the square "
            "root of the former).",
            _varies_little,
            (_VARIATION["parameters"], _VARIATION["dimension"]),
        ),
    ),
    notes="The factor between the largest and the smallest of 20 estimates has their noise in it.",
)


def _direct_line(depth: int, width: int) -> Line:
    model = f"mlp,depth={depth},width={width}"
    runs: dict[str, Run] = {
        "cpu": Training(model, "compact", CPU_DATA, CPU),
        "paper": Training(model, "compact", "mnist", SGD),
    }
    if (depth, width) == _DIRECT[0]:
        runs["smoke"] = Training(model, "compact", SMOKE_DATA, SMOKE)
    return Line(f"direct {depth} x {width}", runs)


def _direct_accuracy(records: Sequence[Any]) -> Estimate:
    found = summarize(list(map(last_accuracy, records)))
    return Estimate(found.mean, found.std, n=found.n)


def _subspace_accuracies(found: "IntrinsicDimension", dim: int) -> dict[int, float]:
    """Seed -> accuracy at a dimension, linear in its logarithm between those measured; percent."""
    found_there = {}
    for index, seed in enumerate(found.seeds):
        curve = {d: accuracies[index] for d, accuracies in found.curve.items()}
        known = {d: 100 * accuracy for d, accuracy in curve.items() if accuracy is not None}
        below = max((d for d in known if d <= dim), default=None)
        above = min((d for d in known if d >= dim), default=None)
        if below is not None and above is not None:
            share = log(dim / below) / log(above / below) if below < above else 0.0
            found_there[seed] = known[below] + share * (known[above] - known[below])
    return found_there


def _pairs(results: Results) -> list[tuple[int, dict[int, float], dict[int, float]]]:
    """(trained numbers, direct accuracies, subspace accuracies at as many), percent by seed."""
    beside = results.records(_BESIDE)
    found = []
    for depth, width in _DIRECT:
        size = _parameters(depth, width)
        direct = {
            outcome.seed: last_accuracy(outcome.record)
            for outcome in results.outcomes.get(f"direct {depth} x {width}", ())
            if outcome.record is not None
        }
        subspace = _subspace_accuracies(beside[0], size) if beside else {}
        if direct.keys() & subspace.keys():
            found.append((size, direct, subspace))
    return found


def _direct_is_worse(results: Results) -> Verdict:
    """At as many trained numbers every small network is less accurate than the subspace."""
    pairs = _pairs(results)
    if not pairs:
        return verdict(None, "no direct network has a subspace of its size beside it")
    means = [(size, fmean(direct.values()), fmean(sub.values())) for size, direct, sub in pairs]
    worse = sum(direct < subspace for _, direct, subspace in means)
    text = "; ".join(
        f"{size:,}: direct {direct:.1f}%, subspace {subspace:.1f}%"
        for size, direct, subspace in means
    )
    text = f"{worse} of {len(pairs)} below the subspace of {_BESIDE}: {text}"
    seeds = [s for s in pairs[0][1] if all(s in one for pair in pairs for one in pair[1:])]
    if worse < len(pairs) or not seeds:
        each = [paired([sub[s] for s in seeds], [direct[s] for s in seeds])
                for _, direct, sub in pairs if seeds]  # fmt: skip
        refuted = any(judge(one) == "does not hold" for one in each)
        return verdict("does not hold" if refuted else "undecided", text)
    # Over sizes the mean, over seeds the interval.
    above = [fmean(sub[s] - direct[s] for _, direct, sub in pairs) for s in seeds]
    gain = paired(above, [0.0] * len(above))
    text = f"{text}; subspace - direct {difference(gain)}, points"
    return verdict(judge(gain), text, p_of(gain))


def _draw_direct(results: Results, path: Path) -> None:
    """Accuracy against trained numbers: small networks, and the subspaces of the large one."""
    with drawing(path, figsize=(7, 4.6)) as (figure, axis):
        for index, found in enumerate(results.records(_BESIDE)):
            for seed_index in range(len(found.seeds)):
                points = [(d, a[seed_index]) for d, a in found.curve.items()]
                known = [(d, 100 * a) for d, a in points if a is not None]
                axis.plot(
                    *zip(*known, strict=True),
                    "o-",
                    color=COLOURS[index],
                    markersize=4,
                    label=f"subspaces of {_BESIDE}" if seed_index == 0 else None,
                )
        sizes = [(_parameters(*shape), f"direct {shape[0]} x {shape[1]}") for shape in _DIRECT]
        known = [
            (size, found.value)
            for size, label in sizes
            if (found := results.estimate(label, "last_accuracy"))
        ]
        if known:
            axis.plot(
                *zip(*known, strict=True), "D", color="#767676", label="small networks, all trained"
            )
        axis.set(xscale="log", xlabel="numbers trained", ylabel="test accuracy, last epoch (%)")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize="small")
        figure.suptitle(f"{results.experiment.name}, preset {results.preset}")


DIRECT = Experiment(
    name="li2018-direct",
    paper=f"{PAPER}, Figure 4 (left)",
    title="small networks do worse than a subspace of a large one with as many trained numbers",
    measures=(
        Quantity("last_accuracy", "accuracy (%)", over=by_probe({"": _direct_accuracy})),
        DIMENSION,
    ),
    lines=(
        _grid_line(2, 200),
        *(_direct_line(depth, width) for depth, width in _DIRECT),
    ),
    presets={
        "smoke": Preset(1, SMOKE_DIFFERS),
        "cpu": Preset(
            CPU_SEEDS, f"{CPU.epochs} epochs on {CPU_DATA}, not 100 on all; eight small networks."
        ),
        "paper": Preset(3, "Eight small networks, where the paper draws many at random."),
    },
    claims=(
        Claim(
            "With as many trained numbers the small network is less accurate than the subspace of "
            f"{_BESIDE}.",
            _direct_is_worse,
        ),
    ),
    notes="The smallest fully-connected network on 784 pixels has 805 parameters. Accuracies are "
    "those of the last epoch.",
    draw=_draw_direct,
)


def _expanded(
    model: str, variant: str, data: str, recipe: Recipe, search: dict[str, Any]
) -> dict[str, Run]:
    """The runs of a network in a variant."""
    small = intrinsic("digitnet", "digits,limit=256", SMOKE, SMOKE_SEARCH, variant=variant)
    runs: dict[str, Run] = {"cpu": intrinsic(model, data, recipe, search, variant=variant)}
    runs["paper"] = intrinsic(model, data.partition(",")[0], recipe, variant=variant)
    return runs | ({"smoke": small} if model == "digitnet" else {})


_DIGITS = replace(SGD, epochs=30, batch_size=64, lr=0.05)
_VARIANTS = {"compact": "compact", "CK, rate 4": "ck,rate=4", "CL, rate 4": "cl,rate=4"}


def _ratio(a: str, b: str) -> Check:
    """What the ratio is; there is no claim to judge."""

    def check(results: Results) -> Verdict:
        ratio = times(results, a, b)
        if ratio is None:
            return verdict(None, f"({a}) / ({b}): not run")
        apart = ratio.low is not None and ratio.high is not None and ratio.low * ratio.high > 0
        text = f"({a}) / ({b}): {describe_ratio(ratio)}"
        if exp(abs(ratio.mean)) < 1.05 or not apart:
            return verdict("undecided", f"{text}; not told apart")
        return verdict("holds", f"{text}; {'more' if ratio.mean > 0 else 'fewer'} dimensions")

    return check


EXPANDED = Experiment(
    name="expanded-intrinsic",
    paper="Nobody's; after Li et al. 2018 and Guo, Alvarez and Salzmann 2020",
    title="the intrinsic dimension of an ExpandNet beside its compact network's",
    measures=(DIMENSION, _SIZE, ACCURACY),
    lines=(
        *(
            Line(
                f"digits: DigitNet, {name}",
                _expanded("digitnet", variant, "digits", _DIGITS, {"start": 16, "resolution": 0.2}),
            )
            for name, variant in _VARIANTS.items()
        ),
        *(
            Line(
                f"MNIST: LeNet, {name}",
                _expanded("lenet", variant, CPU_DATA, CPU, {"start": 64, "resolution": 0.3}),
                seeds=CPU_LENET_SEEDS,
            )
            for name, variant in list(_VARIANTS.items())[:2]
        ),
    ),
    presets={
        "smoke": Preset(2, SMOKE_DIFFERS),
        "cpu": Preset(
            CPU_EXPANDED_SEEDS,
            f"Small networks: DigitNet on 8 x 8 digits, {_DIGITS.epochs} epochs at learning rate "
            f"{_DIGITS.lr:g}; LeNet on {CPU_DATA}, {CPU.epochs} epochs, two seeds.",
        ),
        "paper": Preset(5, "Nothing was published; the whole of each training set."),
    },
    claims=tuple(
        Claim(
            f"Ours, a question: does {name} need another number of dimensions than compact "
            f"({network})?",
            _ratio(f"{network}, {name}", f"{network}, compact"),
        )
        for network, names in (
            ("digits: DigitNet", list(_VARIANTS)[1:]),
            ("MNIST: LeNet", list(_VARIANTS)[1:2]),
        )
        for name in names
    ),
    notes="The subspace is of the coordinates being trained: of an ExpandNet, of its factors. The "
    'verdict "holds" means that the two are told apart.',
)

EXPERIMENTS = (GRID, DIRECT, EXPANDED)
